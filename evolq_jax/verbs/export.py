"""The verb `export`: a run's network as integers, in files for other runtimes."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np

from evolq_jax.config.experiment import Experiment
from evolq_jax.data import fingerprint
from evolq_jax.devices.precision import matmul_precision
from evolq_jax.errors import UserError, suggestion
from evolq_jax.integers.build import integer_model
from evolq_jax.integers.exported import NAMES, Format, as_numpy, in_batches
from evolq_jax.integers.files import write_safetensors
from evolq_jax.integers.model import About, IntegerModel
from evolq_jax.integers.onnx.build import Target
from evolq_jax.integers.whole_file import make_folder
from evolq_jax.metrics import mean_scores, score
from evolq_jax.notes import say_once
from evolq_jax.paths import user_path
from evolq_jax.pipeline.calibrate import stages_of
from evolq_jax.pipeline.class_names import class_names
from evolq_jax.pipeline.evaluate import FLOAT
from evolq_jax.pipeline.images import count_evaluation, evaluation_preprocessing, load_evaluation
from evolq_jax.pipeline.load import Setup
from evolq_jax.pipeline.watcher import Silent, Watcher
from evolq_jax.quantized.logits import compute_logits
from evolq_jax.quantized.network import QuantizedNetwork
from evolq_jax.quantized.size import size_of
from evolq_jax.runs.directory import LOG, open_run
from evolq_jax.runs.provenance import provenance, weights_fingerprint
from evolq_jax.runs.results.common import setting_of
from evolq_jax.runs.typed_json import to_plain
from evolq_jax.typing import Images
from evolq_jax.verbs.evaluate import load_run

Writer = Callable[[IntegerModel, Path], Path]
FOLDER = "exported"  # of a run's directory
RUN, INTEGERS, IMAGES = "run", "integers", "evaluation images"


@dataclass(frozen=True, kw_only=True)
class ExportResult:
    """The result of `run_export`.

    Attributes:
      files: by format.
      sizes: their bytes.
      float32: bytes of the float network's parameters.
      network: `final`, or `init` where the run has not finished.
      metrics: scores of the float network, of the run's network and of the integers.
      num_images: that were scored.
    """

    files: Mapping[Format, Path]
    sizes: Mapping[Format, int]
    float32: int
    network: str
    metrics: Mapping[str, Mapping[str, float | None]]
    num_images: int


def run_export(
    run_dir: str | Path,
    formats: Sequence[Format] = ("safetensors",),
    *,
    out: str | Path | None = None,
    target: Target = "onnxruntime",
    allow_float: bool = False,
    config: Experiment | None = None,
    watcher: Watcher | None = None,
) -> ExportResult:
    """Writes the network that a run ended with as integers.

    The scores in the files are those of the integers, computed here. `quantized.safetensors` is always
    written: other files are verified against it.

    Args:
      run_dir: a finished or calibrated run.
      formats: what to write beside `quantized.safetensors`.
      out: the folder to write into; None: `exported` in the run's directory.
      target: the runtime that an ONNX file is for.
      allow_float: whether an ONNX file may compute in float what ONNX has no integers for.
      config: the run's config with other `data` fields; None: as it is recorded.
      watcher: told of the progress.

    Raises:
      UserError: there is no such run, its network is no integer, a format cannot express it or its package
        is not installed, or the folder cannot be written.
    """
    watcher, run = watcher or Silent(), open_run(run_dir)
    config = config or run.config()
    _check_options(formats, target, allow_float=allow_float)
    folder = run.path / FOLDER if out is None else user_path(out, "folder")
    with matmul_precision(config.precision):
        setup, params, saved = load_run(run, config)
        name = "init" if saved.final is None else "final"
        if name == "init" and run.has(LOG):
            say_once(
                f"the run in '{run.path}' has not finished: its network is exported as it was calibrated"
            )
        quantized = stages_of(setup, params, ranges=None, init=saved.init, final=saved.final)[name]
        model = replace(integer_model(quantized), preprocessing=evaluation_preprocessing(setup))
        writers = _writers(formats, target, allow_float=allow_float)
        _try(model, writers)
        names = class_names(config.data.class_index, setup.model.config.num_classes)
        count_evaluation(setup)
        make_folder(folder)
        images = load_evaluation(setup, watcher.stage("decoding evaluation images"))
        metrics = _scores(setup, quantized, model, images=images, watcher=watcher)
    made_from = _provenance(setup, name, images)
    model = replace(model, about=About(names, metrics, len(images.names), made_from))
    files: dict[Format, Path] = {kind: write(model, folder / NAMES[kind]) for kind, write in writers.items()}
    return ExportResult(
        files=files,
        sizes={kind: path.stat().st_size for kind, path in files.items()},
        float32=size_of(quantized).float32,
        network=name,
        metrics=metrics,
        num_images=len(images.names),
    )


def _check_options(formats: Sequence[Format], target: Target, *, allow_float: bool) -> None:
    """Refuses unknown formats, and what only ONNX files heed where none is written."""
    known = get_args(Format)
    for given in formats:
        if given not in known:
            raise UserError(f"unknown format '{given}'{suggestion(given, known)} (known: {', '.join(known)})")
    if "onnx" not in formats and (allow_float or target != "onnxruntime"):
        option = "--allow-float" if allow_float else "--target"
        raise UserError(f"{option} is about ONNX files, and none is asked for: add --format onnx")


def _scores(
    setup: Setup, quantized: QuantizedNetwork, model: IntegerModel, *, images: Images, watcher: Watcher
) -> dict[str, dict[str, float | None]]:
    """Of the float network, the run's and the integers."""
    size, logits = setup.config.evaluation_batch, dict[str, np.ndarray]()
    for name, network in ((FLOAT, setup.model), (RUN, quantized)):
        progress = watcher.stage(f"evaluating {name}")
        logits[name] = compute_logits(network, images.pixels, size, mesh=setup.mesh, progress=progress)
    progress = watcher.stage(f"evaluating {INTEGERS}")
    logits[INTEGERS] = in_batches(as_numpy(model), images.pixels, size, progress)
    return {
        name: asdict(mean_scores(score(each, logits[FLOAT], images.labels))) for name, each in logits.items()
    }


def _provenance(setup: Setup, network: str, images: Images) -> dict[str, Any]:
    """What the integers were made from. It names no path."""
    prints = {"weights": weights_fingerprint(setup.model.params), IMAGES: fingerprint(images)}
    made = to_plain(provenance(setup.mesh, fingerprints=prints, chunks={}))
    setting = to_plain(setting_of(setup.config, setup.model, setup.added_parameters))
    return {"network": network, "setting": setting, **made}


def _writers(formats: Sequence[Format], target: Target, *, allow_float: bool) -> dict[Format, Writer]:
    """What writes each format. The reference comes first."""
    writers: dict[Format, Writer] = {"safetensors": write_safetensors}
    if "onnx" in formats:
        from evolq_jax.integers.onnx.write import write_onnx

        writers["onnx"] = partial(write_onnx, target=target, allow_float=allow_float)
    if "stablehlo" in formats:
        from evolq_jax.integers.stablehlo import need_flatbuffers, write_stablehlo

        need_flatbuffers()
        writers["stablehlo"] = write_stablehlo
    return writers


def _try(model: IntegerModel, writers: Mapping[Format, Writer]) -> None:
    """Finds out what a format refuses, before images are scored and anything is written."""
    if "onnx" in writers:
        with tempfile.TemporaryDirectory() as folder:
            writers["onnx"](model, Path(folder) / NAMES["onnx"])
