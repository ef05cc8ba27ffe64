"""The verb `train`: trains a model of the registry from scratch, and writes its weights."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import jax

from evolq_jax.data import load_images
from evolq_jax.devices.precision import matmul_precision
from evolq_jax.errors import UserError
from evolq_jax.models.checkpoint import save_params
from evolq_jax.models.registry import get_entry, param_shapes
from evolq_jax.network.network import Network
from evolq_jax.paths import user_path
from evolq_jax.quantized.logits import compute_logits
from evolq_jax.training import Labelled, TrainConfig, TrainExperiment, train
from evolq_jax.typing import Images, Preprocessing, no_progress
from evolq_jax.version import __version__

__all__ = ["TrainConfig", "TrainExperiment", "TrainingResult", "run_training"]

EVALUATION_BATCH = 100


@dataclass(frozen=True, kw_only=True)
class TrainingResult:
    """The weights that a training wrote, and their accuracy.

    Attributes:
      path: the file of the weights.
      top1: the share of test images that are classified right, from 0 to 1.
      num_test: the number of test images.
    """

    kind: Literal["training"] = "training"
    path: Path
    top1: float
    num_test: int


def run_training(
    config: TrainExperiment, progress: Callable[[int, int], None] = no_progress, command: str = ""
) -> TrainingResult:
    """Trains, measures top-1 on the test images, and writes `config.out`, which `load_checkpoint` reads.

    The metadata of the file say the model, the config, the command, the accuracy and the versions.

    Args:
      config: the model, the images, the settings.
      progress: called with the number of epochs done.
      command: the command line, for the record.

    Raises:
      UserError: the model is unknown; images are missing, unlabelled or unfit; the file cannot be written.
    """
    entry, out = get_entry(config.model), _prepare(config.out)
    model = entry.config
    if config.num_classes is not None:
        model = replace(model, num_classes=config.num_classes)
    if any(name.endswith("running_var") for name in param_shapes(entry.family, model)):
        raise UserError(f"model '{config.model}' has BatchNorm, which is not trained here: choose a ViT")
    learnt = _load(config.train_data, config.class_index, entry.preprocessing)
    tested = _load(config.test_data, config.class_index, entry.preprocessing)
    params = entry.family.init(jax.random.key(config.train.seed), model)
    network = Network(entry.family.make(model), params, entry.preprocessing)
    with matmul_precision():
        network, history = train(
            network, learnt, config.train, on_epoch=lambda epoch: progress(epoch.number, config.train.epochs)
        )
        logits = compute_logits(network, tested.pixels, EVALUATION_BATCH)
    top1 = float((logits.argmax(-1) == tested.labels).mean())
    metadata = {
        "model": entry.name,
        "command": command,
        "config": json.dumps(asdict(config)),
        "top1": f"{top1:.4f} on the {len(logits)} images of {config.test_data}",
        "train_loss": f"{history[-1].loss:.4g}",
        "versions": f"evolq_jax {__version__}, jax {jax.__version__}",
    }
    save_params(out, network.params, {key: value for key, value in metadata.items() if value})
    return TrainingResult(path=out, top1=top1, num_test=len(logits))


def _load(source: str, class_index: str | None, preprocessing: Preprocessing) -> Labelled:
    images: Images = load_images(source, preprocessing, class_index=class_index)
    channels = len(preprocessing.mean)
    if images.labels is None:
        raise UserError(f"'{source}' has no labels to train or test with (folders need class_index)")
    if images.pixels.shape[-1] != channels:
        raise UserError(
            f"'{source}' has images of {images.pixels.shape[-1]} channels, but the network takes {channels}"
        )
    return Labelled(images.pixels, images.labels)


def _prepare(out: str) -> Path:
    """Makes the folder of the weights. Refuses, before the training, a file that cannot be written."""
    path = user_path(out, "out")
    if path.suffix != ".safetensors":
        raise UserError(f"out is '{out}': weights are written as .safetensors, so give it that ending")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"out is '{out}', but its folder cannot be made: {error.strerror}") from error
    return path
