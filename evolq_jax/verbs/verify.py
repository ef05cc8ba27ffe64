"""The verb `verify`: whether a file computes what its integers say, by its own runtime.

Two implementations never agree on every image, since values that lie between two codes fall to either side.
So the same run measures a floor: how far our own network is from itself if every scale moves by its last bit.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import jax
import numpy as np

from evolq_jax.config.experiment import DataConfig, Experiment
from evolq_jax.data import open_source
from evolq_jax.devices.precision import matmul_precision
from evolq_jax.errors import UserError
from evolq_jax.integers.describe import fingerprint
from evolq_jax.integers.exported import NAMES, Exported, as_numpy, in_batches, open_exported
from evolq_jax.integers.files import read_safetensors
from evolq_jax.integers.model import IntegerModel
from evolq_jax.integers.onnx.read import check_onnx
from evolq_jax.metrics import mean_scores, score
from evolq_jax.paths import user_path
from evolq_jax.pipeline.images import check_channels, check_labels, evaluation_images
from evolq_jax.pipeline.load import load_model
from evolq_jax.pipeline.watcher import Silent, Watcher
from evolq_jax.quantized.logits import compute_logits
from evolq_jax.runs.directory import CONFIG, open_run
from evolq_jax.runs.provenance import weights_fingerprint
from evolq_jax.typing import Images

BATCH = 50
LAST_BIT = np.float32(1 + 1.2e-7)  # the next float32 above 1

# What may lie between a file and its integers.
AGREEMENT = 0.02  # below the floor's
KL_RATIO = 1.3  # times the floor's
TOP1 = 0.005
KL = 0.005  # nats, of the distance to the float network
# Sets of few images can have a floor of nothing, and one image can be more than the bound on top-1.
LEAST_KL = 1e-4  # nats

OWN, FLOOR, FILE = "the integers", "the floor", "the file"


@dataclass(frozen=True)
class Criterion:
    """One thing that was compared.

    Attributes:
      name: what.
      found: of the file.
      floor: of our own network with scales moved by their last bit. None: it has none.
      bound: what `found` may be.
      at_least: whether it may not be lower; else it may not be higher.
    """

    name: str
    found: float
    floor: float | None
    bound: float
    at_least: bool = False

    @property
    def passed(self) -> bool:
        """Whether the file is within the bound."""
        return self.found >= self.bound if self.at_least else self.found <= self.bound


@dataclass(frozen=True, kw_only=True)
class Verification:
    """The result of `run_verify`.

    Attributes:
      path: the file.
      reference: the file of the integers that it was compared with.
      num_images: that were compared.
      criteria: what was compared.
      left_out: what could not be compared, and why.
    """

    path: Path
    reference: Path
    num_images: int
    criteria: tuple[Criterion, ...]
    left_out: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether every criterion holds."""
        return all(criterion.passed for criterion in self.criteria)


def run_verify(
    path: str | Path,
    *,
    data: DataConfig | None = None,
    reference: str | Path | None = None,
    run_dir: str | Path | None = None,
    watcher: Watcher | None = None,
) -> Verification:
    """Runs a file with its own runtime, and compares it with its integers.

    Args:
      path: what `evolq export` wrote.
      data: names other images, as the evaluation images of a config; None: those of the run.
      reference: the `quantized.safetensors` of the same integers; None: the one beside the file.
      run_dir: the run that the file was made from, for its float network and its images; None: the one
        that the file lies in, if it does.
      watcher: told of the progress.

    Raises:
      UserError: a file is missing or was changed, or holds other integers than the reference; or there are no
        images, or they are not such as the network takes.
    """
    watcher, exported = watcher or Silent(), open_exported(path)
    where = user_path(reference, "file") if reference else exported.path.with_name(NAMES["safetensors"])
    if not where.is_file():
        raise UserError(f"'{where}' is missing, which holds the integers: name the file by --reference")
    model = read_safetensors(where)
    if exported.description["fingerprint"] != fingerprint(model):
        raise UserError(f"'{exported.path}' and '{where}' hold other integers: export them together")
    if exported.format == "onnx":
        check_onnx(exported.path, model)
    run = _find_run(exported.path, run_dir)
    images = _load(exported, data, run, watcher)
    logits = {
        name: in_batches(each, images.pixels, BATCH, watcher.stage(f"running {name}"))
        for name, each in _networks(exported, model).items()
    }
    floats = None if run is None else _float_logits(run, exported, images, watcher)
    criteria, left_out = _compare(logits, floats, images.labels)
    return Verification(
        path=exported.path,
        reference=where,
        num_images=len(images.pixels),
        criteria=criteria,
        left_out=left_out,
    )


def _networks(exported: Exported, model: IntegerModel) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    return {OWN: as_numpy(model), FLOOR: as_numpy(moved(model)), FILE: exported.run}


def moved(model: IntegerModel) -> IntegerModel:
    """The model with every scale at the next float32."""
    qparams = {
        name: numbers._replace(scale=numbers.scale * LAST_BIT) for name, numbers in model.qparams.items()
    }
    return replace(model, qparams=jax.device_put(qparams))


def _find_run(file: Path, given: str | Path | None) -> Experiment | None:
    """The config of the run that a file was made from. None: the file lies in no run."""
    if given is not None:
        return open_run(given).config()
    folder = file.resolve().parent.parent
    return open_run(folder).config() if (folder / CONFIG).is_file() else None


def _load(exported: Exported, wanted: DataConfig | None, run: Experiment | None, watcher: Watcher) -> Images:
    """The images to compare on.

    Raises:
      UserError: none are named, or they are not such as the network takes.
    """
    data = wanted or (None if run is None else run.data)
    if data is None:
        raise UserError(f"'{exported.path}' lies in no run that names images: name some by --data, or --run")
    source = open_source(data.evaluation, exported.preprocessing, data.class_index, data.tfds_dir)
    check_channels(source, data.evaluation, exported.preprocessing)
    check_labels(source.max_label, data.evaluation, exported.description["config"]["num_classes"])
    return evaluation_images(data, exported.preprocessing, watcher.stage("decoding images"))


def _float_logits(run: Experiment, exported: Exported, images: Images, watcher: Watcher) -> np.ndarray:
    """Of the float network that was quantized."""
    setup = load_model(run)
    wanted = exported.about.provenance.get("fingerprints", {}).get("weights")
    if wanted != weights_fingerprint(setup.model.params):
        raise UserError(f"the weights of the run are not those that '{exported.path}' was made from")
    with matmul_precision(run.precision):
        return compute_logits(setup.model, images.pixels, BATCH, progress=watcher.stage("running float"))


def _compare(
    logits: Mapping[str, np.ndarray], floats: np.ndarray | None, labels: np.ndarray | None
) -> tuple[tuple[Criterion, ...], tuple[str, ...]]:
    """The criteria, and what could not be compared."""
    to_own = {name: mean_scores(score(each, logits[OWN], labels)) for name, each in logits.items()}
    found, least = to_own[FILE], to_own[FLOOR]
    criteria = [
        Criterion("agreement", found.agreement, least.agreement, least.agreement - AGREEMENT, at_least=True),
        Criterion("KL to the integers", found.kl, least.kl, max(KL_RATIO * least.kl, LEAST_KL)),
    ]
    left_out: list[str] = []
    tops = [to_own[name].top1 for name in (FILE, FLOOR, OWN)]
    if None in tops:
        left_out.append("top-1: the images have no labels")
    else:
        of_file, of_floor, of_own = (top or 0.0 for top in tops)
        shift, moved_by = abs(of_file - of_own), abs(of_floor - of_own)
        criteria.append(Criterion("change of top-1", shift, moved_by, max(TOP1, 1 / len(logits[FILE]))))
    if floats is None:
        left_out.append("KL to float: the run is not at hand, name it by --run")
    else:
        kl = {name: mean_scores(score(each, floats, None)).kl for name, each in logits.items()}
        moved_by = abs(kl[FLOOR] - kl[OWN])
        criteria.append(Criterion("change of KL to float", abs(kl[FILE] - kl[OWN]), moved_by, KL))
    return tuple(criteria), tuple(left_out)
