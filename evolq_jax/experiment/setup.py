"""From a config to the things that algorithms take: network, images, specs."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import evolq_jax.models
from evolq_jax.config import Experiment
from evolq_jax.data import load_images
from evolq_jax.errors import UserError
from evolq_jax.models.checkpoint import LoadedModel, load_checkpoint
from evolq_jax.models.registry import ModelRow, list_models
from evolq_jax.network import SiteInfo, list_sites
from evolq_jax.quant.spec import Specs, resolve
from evolq_jax.typing import Images, Preprocessing


@dataclass(frozen=True)
class Setup:
    """A loaded network and what of it is quantized."""

    config: Experiment
    model: LoadedModel
    sites: dict[str, SiteInfo]
    specs: Specs


def load_model(config: Experiment) -> Setup:
    """Reads the weights and resolves the quantizers.

    Raises:
      UserError: the model, its weights or a site pattern is wrong.
    """
    model = load_checkpoint(config.model.name, config.model.weights or shipped_weights(config.model.name))
    size = model.preprocessing.size
    sites = list_sites(model.parts, model.params, (size, size, len(model.preprocessing.mean)))
    return Setup(config, model, sites, resolve(config.quant, sites))


def shipped_weights(name: str) -> Path:
    """The weights that evolq_jax brings along for a model.

    Raises:
      UserError: it brings none for this one.
    """
    folder = Path(evolq_jax.models.__file__).parent / "weights"
    path = folder / f"{name}.safetensors"
    if not path.is_file():
        shipped = ", ".join(sorted(p.stem for p in folder.glob("*.safetensors")))
        raise UserError(
            f"no weights given for '{name}': set --model.weights FILE (only {shipped} comes with evolq_jax)"
        )
    return path


def load_calibration(setup: Setup, progress: Any = None) -> Images:
    """The calibration images: drawn by the seed, labels not used.

    Raises:
      UserError: the source is missing, empty or too small.
    """
    data = setup.config.data
    return load_images(
        data.calibration,
        setup.model.preprocessing,
        num=data.num_calibration,
        seed=setup.config.seed,
        cache_dir=data.cache,
        on_corrupt=data.on_corrupt,
        progress=progress,
    )


def load_evaluation(setup: Setup, progress: Any = None) -> Images:
    """The evaluation images: the same for every seed.

    Raises:
      UserError: the source is missing or empty, or labels do not fit the network's classes.
    """
    data = setup.config.data
    folder = Path(data.evaluation).is_dir()
    images = load_images(
        data.evaluation,
        _evaluation_preprocessing(setup),
        class_index=data.class_index if folder else None,
        num=data.num_evaluation,
        seed=0,
        cache_dir=data.cache,
        on_corrupt=data.on_corrupt,
        progress=progress,
    )
    num_classes = setup.model.config.num_classes
    if images.labels is not None and images.labels.max() >= num_classes:
        raise UserError(
            f"'{data.evaluation}' has label {images.labels.max()}, but {setup.model.name} has {num_classes} "
            "classes; check the class-index file or the weights"
        )
    return images


def _evaluation_preprocessing(setup: Setup) -> Preprocessing:
    resize = setup.config.data.evaluation_resize
    preprocessing = setup.model.preprocessing
    return preprocessing if resize == "checkpoint" else replace(preprocessing, resize=resize)


def model_rows() -> list[ModelRow]:
    """What `evolq models` lists."""
    return list_models()
