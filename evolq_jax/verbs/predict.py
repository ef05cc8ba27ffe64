"""The verb `predict`: the classes that a run's quantized network sees in pictures."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jax.nn
import numpy as np

from evolq_jax.config.experiment import Experiment
from evolq_jax.data.class_index import read_class_index
from evolq_jax.data.pictures import decode_picture, list_pictures
from evolq_jax.devices.precision import matmul_precision
from evolq_jax.errors import UserError
from evolq_jax.paths import user_path
from evolq_jax.pipeline.calibrate import stages_of
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
      float_class: the likeliest class by the float network.
    """

    image: str
    classes: tuple[int, ...]
    probabilities: tuple[float, ...]
    float_class: int


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
    if top < 1:
        raise UserError(f"--top must be at least 1, not {top}")
    files = list_pictures(images)
    with matmul_precision(config.precision):
        setup, params, saved = load_run(run, config)
        names = _class_names(config.data.class_index, setup.model.config.num_classes)
        preprocessing, progress = evaluation_preprocessing(setup), watcher.stage("decoding pictures")
        pixels: list[np.ndarray] = []
        for file in files:
            pixels.append(decode_picture(file, preprocessing))
            progress(len(pixels), len(files))
        stages = stages_of(setup, params, ranges=None, init=saved.init, final=saved.final)
        name = "init" if saved.final is None else "final"
        logits = {
            which: compute_logits(
                network,
                np.stack(pixels),
                config.evaluation_batch,
                mesh=setup.mesh,
                progress=watcher.stage(f"evaluating {which}"),
            )
            for which, network in ((FLOAT, setup.model), (name, stages[name]))
        }
    best = np.argsort(-logits[name], axis=-1, kind="stable")[:, :top]
    likely = np.asarray(jax.nn.softmax(logits[name]))
    return PredictionResult(
        network=name,
        predictions=tuple(
            Prediction(
                image=str(file),
                classes=tuple(best[number].tolist()),
                probabilities=tuple(likely[number, best[number]].tolist()),
                float_class=int(logits[FLOAT][number].argmax()),
            )
            for number, file in enumerate(files)
        ),
        class_names=names,
    )


def _class_names(class_index: str | None, num_classes: int) -> tuple[str, ...] | None:
    """The classes of a list, by index."""
    if class_index is None:
        return None
    index = read_class_index(user_path(class_index, "data.class_index"))
    names = tuple(index.titles)
    if len(names) != num_classes:
        raise UserError(
            f"{class_index} names {len(names)} classes, but the network has {num_classes}: give its own list "
            "with --data.class-index, or --data.class-index none"
        )
    return names
