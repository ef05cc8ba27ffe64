"""The main verbs: calibrate, search, evaluate."""

import importlib.metadata
import json
import time
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from evolq_jax.calibration.calibrate import initialise
from evolq_jax.config import Experiment
from evolq_jax.data import fingerprint
from evolq_jax.errors import UserError
from evolq_jax.experiment.evaluate import compute_logits, quantize_weights
from evolq_jax.experiment.run_directory import RunDirectory
from evolq_jax.experiment.setup import Setup, load_calibration, load_evaluation, load_model
from evolq_jax.experiment.plan import num_total
from evolq_jax.experiment.watch import Silent, Watcher
from evolq_jax.metrics import Scores, paired_delta, score, summary
from evolq_jax.network import largest_divisor, normalize
from evolq_jax.quant.sites import quant_sites
from evolq_jax.search.blockwise import Generation, SearchResult, search
from evolq_jax.search.evaluate import embed
from evolq_jax.typing import Array, Images, Params, Scales


class Calibrated(NamedTuple):
    """A network with first scales, and the calibration images they came from."""

    setup: Setup
    params: Params
    scales: Scales
    images: Images
    seconds: float


def calibrate(config: Experiment, watcher: Watcher | None = None) -> Calibrated:
    """Loads model and calibration images and runs the chain of initialisers.

    Raises:
      UserError: something in the config, the weights or the images is wrong.
    """
    watcher = watcher or Silent()
    setup = load_model(config)
    images = load_calibration(setup, watcher.stage("decoding calibration images"))
    began = time.monotonic()
    batch = config.calibration.batch_size
    preprocess = jax.jit(partial(normalize, setup.model.preprocessing))
    count = len(images.pixels)
    if count < batch:
        raise UserError(
            f"{count} calibration images are fewer than one batch of {batch}; "
            "raise data.num_calibration or lower calibration.batch_size"
        )
    whole = range(0, count - batch + 1, batch)
    params, scales = initialise(
        config.calibration.chain,
        setup.model.parts,
        setup.specs,
        setup.sites,
        setup.model.params,
        [preprocess(jnp.asarray(images.pixels[i : i + batch])) for i in whole],
        config.calibration.image_chunk,
        watcher.stage("calibrating"),
    )
    jax.block_until_ready(scales)
    return Calibrated(setup, params, scales, images, time.monotonic() - began)


def run_search(
    config: Experiment, run_dir: str | Path | None = None, watcher: Watcher | None = None
) -> dict[str, Any]:
    """Calibrates, searches and evaluates; returns the content of `result.json` with the run's path.

    Raises:
      UserError: something in the config, the weights, the images or the run directory is wrong.
    """
    watcher = watcher or Silent()
    _check_batches(config)
    began = time.monotonic()
    setup = load_model(config)
    evaluation = load_evaluation(setup, watcher.stage("decoding evaluation images"))
    calibrated = calibrate(config, watcher)
    run = RunDirectory.create(run_dir, config)
    run.write_scales("init_scales.safetensors", calibrated.scales)
    found = _search(calibrated, run, watcher)
    run.write_scales("scales.safetensors", found.scales)
    networks = {"float": None, "init": calibrated.scales, "final": found.scales}
    result = _evaluate(calibrated.setup, calibrated.params, networks, evaluation, watcher)
    result |= {
        "evaluations": found.evaluations,
        "seconds": round(time.monotonic() - began, 2),
        "seed": config.seed,
        "num_calibration_images": len(calibrated.images.pixels),
        "num_evaluation_images": len(evaluation.pixels),
        "device": jax.devices()[0].device_kind,
        "versions": versions(),
        "name": config.name,
        "scheme": config.quant.scheme,
        "weight_bits": config.quant.weight_bits,
        "activation_bits": config.quant.activation_bits,
        "calibration_fitness": {"init": found.start_fitness, "final": found.fitness},
        "seconds_calibration": round(calibrated.seconds, 2),
        "seconds_search": round(found.seconds, 2),
        "skipped_images": {"calibration": len(calibrated.images.skipped), "evaluation": len(evaluation.skipped)},
        "fingerprints": {"calibration": fingerprint(calibrated.images), "evaluation": fingerprint(evaluation)},
    }
    run.write_json("result.json", result)
    return result | {"run_dir": str(run.path)}


def run_evaluate(
    target: str | Path | Experiment, watcher: Watcher | None = None
) -> dict[str, Any]:
    """Float, init and (of a run) final scores on the evaluation images, computed anew.

    Raises:
      UserError: it is no run directory, or its weights or images are not what they were.
    """
    watcher = watcher or Silent()
    if isinstance(target, Experiment):
        calibrated = calibrate(target, watcher)
        setup, params = calibrated.setup, calibrated.params
        networks: dict[str, Scales | None] = {"float": None, "init": calibrated.scales}
    else:
        run = RunDirectory.open(target)
        setup = load_model(run.config())
        params = setup.model.params
        networks = {
            "float": None,
            "init": run.read_scales("init_scales.safetensors"),
            "final": run.read_scales("scales.safetensors"),
        }
    evaluation = load_evaluation(setup, watcher.stage("decoding evaluation images"))
    result = _evaluate(setup, params, networks, evaluation, watcher)
    config = setup.config
    return result | {
        "name": config.name,
        "scheme": config.quant.scheme,
        "weight_bits": config.quant.weight_bits,
        "activation_bits": config.quant.activation_bits,
        "num_evaluation_images": len(evaluation.pixels),
        "seed": config.seed,
    }


def run_calibrate(
    config: Experiment, run_dir: str | Path | None = None, watcher: Watcher | None = None
) -> dict[str, Any]:
    """Calibrates and writes the first scales; returns a summary with the run's path."""
    calibrated = calibrate(config, watcher)
    run = RunDirectory.create(run_dir, config)
    run.write_scales("init_scales.safetensors", calibrated.scales)
    return {
        "run_dir": str(run.path),
        "sites": len(calibrated.scales),
        "scales": sum(int(q.scale.size) for q in calibrated.scales.values()),
        "num_calibration_images": len(calibrated.images.pixels),
        "seconds": round(calibrated.seconds, 2),
    }


def read_result(run_dir: str | Path) -> dict[str, Any]:
    """A finished run's `result.json`."""
    file = RunDirectory.open(run_dir).path / "result.json"
    if not file.is_file():
        raise UserError(f"run '{run_dir}' has no result.json: it has not finished")
    return json.loads(file.read_text())


def versions() -> dict[str, str]:
    """Of what decides the numbers."""
    return {name: importlib.metadata.version(name) for name in ("evolq_jax", "jax", "jaxlib", "evosax", "numpy")}


def teacher_logits(calibrated: Calibrated, watcher: Watcher | None = None) -> Array:
    """What the search imitates [B, C]: the float network, or the released code's variant of it."""
    setup, config = calibrated.setup, calibrated.setup.config
    integer = config.search.teacher == "integer_layer_norm"
    logits = compute_logits(
        setup.model.parts,
        setup.specs if integer else (),
        setup.model.preprocessing,
        setup.model.params,
        calibrated.scales if integer else {},
        calibrated.images.pixels,
        config.calibration.image_chunk,
        (watcher or Silent()).stage("computing the teacher"),
        integer_norm_only=integer,
    )
    return jnp.asarray(logits)


def _check_batches(config: Experiment) -> None:
    count, batch = config.data.num_calibration, config.search.batch_size
    if count is not None and (count < batch or count % batch):
        raise UserError(
            f"data.num_calibration ({count}) must be a multiple of search.batch_size ({batch}); change one"
        )


def _search(calibrated: Calibrated, run: RunDirectory, watcher: Watcher) -> SearchResult:
    setup, config = calibrated.setup, calibrated.setup.config
    parts, specs = setup.model.parts, setup.specs
    teacher = teacher_logits(calibrated, watcher)
    image_chunk, _ = config.search.chunks()
    quantized = quantize_weights(specs, calibrated.params, calibrated.scales)
    tokens = jax.jit(
        partial(embed, parts, quant_sites(specs), largest_divisor(len(teacher), image_chunk), setup.model.preprocessing)
    )(quantized, calibrated.scales, jnp.asarray(calibrated.images.pixels))
    total = num_total(config, setup)
    with (run.path / "log.jsonl").open("w") as log:

        def on_generation(record: Generation) -> None:
            log.write(json.dumps(record._asdict()) + "\n")
            log.flush()
            watcher.generation(record, total)

        return search(
            config.search,
            parts,
            specs,
            calibrated.params,
            calibrated.scales,
            tokens,
            teacher,
            jax.random.key(config.seed),
            on_generation,
        )


def _evaluate(
    setup: Setup,
    params: Params,
    networks: dict[str, Scales | None],
    evaluation: Images,
    watcher: Watcher,
) -> dict[str, Any]:
    """Scores of each network (scales; None: float) and the differences final - init."""
    scores: dict[str, Scores] = {}
    teacher: np.ndarray | None = None
    for name, scales in networks.items():
        logits = compute_logits(
            setup.model.parts,
            setup.specs if scales is not None else (),
            setup.model.preprocessing,
            params if scales is not None else setup.model.params,
            scales or {},
            evaluation.pixels,
            setup.config.evaluation_batch,
            watcher.stage(f"evaluating {name}"),
        )
        teacher = logits if teacher is None else teacher  # the float network comes first
        scores[name] = score(logits, teacher, evaluation.labels)
    result: dict[str, Any] = {name: summary(value) for name, value in scores.items()}
    if "final" in scores:
        result["delta"] = paired_delta(scores["init"], scores["final"], setup.config.seed)
    return result
