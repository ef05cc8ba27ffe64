"""The verb `predict`: the classes that a run's quantized network sees in pictures."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import jax.nn
import numpy as np

from evolq_jax.config.experiment import Experiment
from evolq_jax.data.pictures import decode_pictures, list_pictures
from evolq_jax.devices.precision import matmul_precision
from evolq_jax.errors import UserError
from evolq_jax.metrics import of_classes
from evolq_jax.pipeline.calibrate import stages_of
from evolq_jax.pipeline.class_names import class_names
from evolq_jax.pipeline.evaluate import FLOAT
from evolq_jax.pipeline.images import evaluation_preprocessing
from evolq_jax.pipeline.watcher import Silent, Watcher
from evolq_jax.quantized.logits import compute_logits
from evolq_jax.runs.directory import open_run
from evolq_jax.verbs.evaluate import load_run


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What the networks see in one picture.

    Attributes:
      image: its path.
      classes: the likeliest, best first.
      probabilities: of these, by the quantized network.
      float_class: the likeliest class by the float network. None: it was not asked.
    """

    image: str
    classes: tuple[int, ...]
    probabilities: tuple[float, ...]
    float_class: int | None = None


@dataclass(frozen=True, kw_only=True)
class PredictionResult:
    """The result of `run_predict`.

    Attributes:
      network: `final`, or `init` where the run has not finished.
      predictions: in the order of the pictures.
      class_names: of all classes, from the class list; None: the config names none.
    """

    network: str
    predictions: tuple[Prediction, ...]
    class_names: tuple[str, ...] | None


def run_predict(
    run_dir: str | Path,
    images: Sequence[str | Path],
    *,
    top: int = 5,
    config: Experiment | None = None,
    watcher: Watcher | None = None,
) -> PredictionResult:
    """Classifies pictures with the network that a run ended with.

    Args:
      run_dir: a finished or calibrated run.
      images: files, and folders of files.
      top: how many classes to name.
      config: the run's config with other `data` fields; None: as it is recorded.
      watcher: told of the progress.

    Raises:
      UserError: there is no such run or picture, or a picture cannot be read.
    """
    watcher, run = watcher or Silent(), open_run(run_dir)
    config = config or run.config()
    check_top(top)
    files = list_pictures(images)
    with matmul_precision(config.precision):
        setup, params, saved = load_run(run, config)
        names = class_names(config.data.class_index, setup.model.config.num_classes)
        pixels = decode_pictures(files, evaluation_preprocessing(setup), watcher.stage("decoding pictures"))
        stages = stages_of(setup, params, ranges=None, init=saved.init, final=saved.final)
        name = "init" if saved.final is None else "final"
        logits = {
            which: compute_logits(
                network,
                pixels,
                config.evaluation_batch,
                mesh=setup.mesh,
                progress=watcher.stage(f"evaluating {which}"),
            )
            for which, network in ((FLOAT, setup.model), (name, stages[name]))
        }
    found = zip(
        likeliest(files, logits[name], top), of_classes(logits[FLOAT]).argmax(-1).tolist(), strict=True
    )
    predictions = tuple(replace(prediction, float_class=best) for prediction, best in found)
    return PredictionResult(network=name, predictions=predictions, class_names=names)


def likeliest(files: Sequence[Path], logits: np.ndarray, top: int) -> Iterator[Prediction]:
    """The likeliest classes of each picture, from logits [B, C]. One output tells two classes apart."""
    logits = of_classes(logits)
    best = np.argsort(-logits, axis=-1, kind="stable")[:, :top]
    likely = np.asarray(jax.nn.softmax(logits))
    for number, file in enumerate(files):
        classes = best[number]
        yield Prediction(
            image=str(file),
            classes=tuple(classes.tolist()),
            probabilities=tuple(likely[number, classes].tolist()),
        )


def check_top(top: int) -> None:
    """Refuses to name no class.

    Raises:
      UserError: `top` is below 1.
    """
    if top < 1:
        raise UserError(f"--top must be at least 1, not {top}")
