"""The main verbs: calibrate, search, evaluate."""

import time
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from evolq_jax.calibration.chain import initialise
from evolq_jax.calibration.state import Calibration
from evolq_jax.config import Experiment
from evolq_jax.data import fingerprint
from evolq_jax.errors import UserError
from evolq_jax.experiment.evaluate import compute_logits, quantize_weights, score_networks
from evolq_jax.experiment.images import (
    check_batches,
    count_calibration,
    count_evaluation,
    load_calibration,
    load_evaluation,
)
from evolq_jax.experiment.plan import num_total
from evolq_jax.experiment.result import check_fingerprints, describe, environment, inputs, weights_fingerprint
from evolq_jax.experiment.run_directory import (
    FINAL_SCALES,
    INIT_SCALES,
    PARAMS,
    RESULT,
    RunDirectory,
    new_run,
    open_run,
)
from evolq_jax.experiment.setup import Setup, check_search, exact_matmul, load_model
from evolq_jax.experiment.watch import Progress, Silent, Watcher
from evolq_jax.network import normalize
from evolq_jax.quant.sites import quant_sites
from evolq_jax.search.blockwise import Generation, SearchResult, search
from evolq_jax.search.evaluate import embed
from evolq_jax.trees import flatten, unflatten
from evolq_jax.typing import CORRECTION, Array, Images, Params, Scales


class Calibrated(NamedTuple):
    """A network with first scales, and the calibration images they came from."""

    setup: Setup
    params: Params
    scales: Scales
    images: Images
    seconds: float


def run_search(
    config: Experiment, run_dir: str | Path | None = None, watcher: Watcher | None = None
) -> dict[str, Any]:
    """Calibrates, searches and evaluates.

    Args:
      config: the experiment.
      run_dir: where to write; must not hold anything. None: the next free `runs/NAME-NNN`.
      watcher: told how it goes on.

    Returns:
      The content of `result.json`, with the run's path under `run_dir`.

    Raises:
      UserError: something in the config, the weights, the images or the run directory is wrong.
    """
    watcher = watcher or Silent()
    began = time.monotonic()
    with new_run(run_dir, config) as run, exact_matmul():
        setup = load_model(config)
        check_search(setup)
        count_calibration(setup, for_search=True)
        count_evaluation(setup)
        evaluation = load_evaluation(setup, watcher.stage("decoding evaluation images"))
        calibrated = calibrate(setup, watcher, for_search=True)
        _write_calibrated(run, calibrated)
        found = _search(calibrated, run, watcher)
        run.write_scales(FINAL_SCALES, found.scales)
        networks = {"init": calibrated.scales, "final": found.scales}
        result = score_networks(setup, calibrated.params, networks, evaluation, watcher)
        result |= describe(setup, len(evaluation.pixels)) | environment()
        result |= {
            "evaluations": found.evaluations,
            "moves": {"kept": found.kept, "visits": found.visits},
            "calibration_fitness": {"init": found.start_fitness, "final": found.fitness},
            "seconds": round(time.monotonic() - began, 2),
            "seconds_calibration": round(calibrated.seconds, 2),
            "seconds_search": round(found.seconds, 2),
        }
        result |= inputs(setup, calibrated.images, evaluation)
        run.write_json(RESULT, result)
    return result | {"run_dir": str(run.path)}


def run_calibrate(
    config: Experiment, run_dir: str | Path | None = None, watcher: Watcher | None = None
) -> dict[str, Any]:
    """Calibrates and writes the first scales; returns a summary with the run's path.

    Raises:
      UserError: something in the config, the weights, the images or the run directory is wrong.
    """
    with new_run(run_dir, config) as run, exact_matmul():
        setup = load_model(config)
        count_calibration(setup, for_search=False)
        calibrated = calibrate(setup, watcher or Silent(), for_search=False)
        _write_calibrated(run, calibrated)
    return {
        "model": setup.model.name,
        "scheme": config.quant.scheme,
        "sites": len(setup.specs),
        "scales": sum(int(qparams.scale.size) for qparams in calibrated.scales.values()),
        "num_calibration_images": len(calibrated.images.pixels),
        "seconds": round(calibrated.seconds, 2),
        "run_dir": str(run.path),
    }


def run_evaluate(target: str | Path | Experiment, watcher: Watcher | None = None) -> dict[str, Any]:
    """Scores on the evaluation images, computed anew: of a config's float and init, or of a run's scales.

    Args:
      target: a config, which is calibrated first, or the directory of a calibrated or searched run.
      watcher: told how it goes on.

    Returns:
      The part of `result.json` that says how good the networks are.

    Raises:
      UserError: it is no run directory, or its weights or images are not what they were.
    """
    watcher = watcher or Silent()
    with exact_matmul():
        if isinstance(target, Experiment):
            setup = load_model(target)
            count_calibration(setup, for_search=False)
            count_evaluation(setup)
            evaluation = load_evaluation(setup, watcher.stage("decoding evaluation images"))
            calibrated = calibrate(setup, watcher, for_search=False)
            params, networks = calibrated.params, {"init": calibrated.scales}
        else:
            run = open_run(target)
            setup = load_model(run.config())
            params, networks = read_params(run, setup), read_networks(run, setup)
            check_fingerprints(run, {"weights": weights_fingerprint(setup.model.params)})
            count_evaluation(setup)
            evaluation = load_evaluation(setup, watcher.stage("decoding evaluation images"))
            check_fingerprints(run, {"evaluation images": fingerprint(evaluation)})
        result = score_networks(setup, params, networks, evaluation, watcher)
    return result | describe(setup, len(evaluation.pixels))


def calibrate(setup: Setup, watcher: Watcher, *, for_search: bool) -> Calibrated:
    """Loads the calibration images and runs the chain of initialisers.

    Raises:
      UserError: the images cannot be read, or do not fill whole batches.
    """
    config = setup.config
    images = load_calibration(setup, watcher.stage("decoding calibration images"))
    check_batches(config, len(images.pixels), for_search=for_search, skipped=len(images.skipped))
    began = time.monotonic()
    preprocess = jax.jit(partial(normalize, setup.model.preprocessing))
    size = config.calibration.batch_size
    batches = [images.pixels[i : i + size] for i in range(0, len(images.pixels), size)]
    calibration = Calibration(
        setup.model.parts,
        setup.specs,
        setup.sites,
        [preprocess(jnp.asarray(batch)) for batch in batches],
        config.calibration.image_chunk,
        config.calibration.damping,
        config.calibration.pull,
        config.calibration.fisher,
    )

    def stage(name: str) -> Progress:
        return watcher.stage(f"calibrating ({name})")

    params, scales = initialise(config.calibration.chain, calibration, setup.model.params, stage)
    jax.block_until_ready(scales)
    return Calibrated(setup, params, scales, images, time.monotonic() - began)


def teacher_logits(calibrated: Calibrated, watcher: Watcher) -> Array:
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
        watcher.stage("computing the teacher"),
        integer_norm_only=integer,
    )
    return jnp.asarray(logits)


def first_tokens(calibrated: Calibrated) -> Array:
    """The calibration images at the first block's input, quantized at the first scales [B, ...]."""
    setup, specs = calibrated.setup, calibrated.setup.specs
    chunk, _ = setup.config.search.chunks()
    enter = jax.jit(partial(embed, setup.model.parts, quant_sites(specs), chunk, setup.model.preprocessing))
    quantized = quantize_weights(specs, calibrated.params, calibrated.scales)
    return enter(quantized, calibrated.scales, jnp.asarray(calibrated.images.pixels))


def _search(calibrated: Calibrated, run: RunDirectory, watcher: Watcher) -> SearchResult:
    setup, config = calibrated.setup, calibrated.setup.config
    parts, specs = setup.model.parts, setup.specs
    teacher, tokens = teacher_logits(calibrated, watcher), first_tokens(calibrated)
    total, key = num_total(setup), jax.random.key(config.seed)
    with run.open_log() as append:

        def on_generation(record: Generation) -> None:
            append(record._asdict())
            watcher.generation(record, total)

        return search(
            config.search,
            parts,
            specs,
            calibrated.params,
            calibrated.scales,
            tokens,
            teacher,
            key,
            on_generation,
        )


def _write_calibrated(run: RunDirectory, calibrated: Calibrated) -> None:
    """The first scales and, where the chain changed them, the parameters that they are for."""
    if _changes_params(calibrated.setup):
        run.write_arrays(PARAMS, flatten(calibrated.params))
    run.write_scales(INIT_SCALES, calibrated.scales)


def _changes_params(setup: Setup) -> bool:
    return any(link != "ranges" for link in setup.config.calibration.chain)


def read_params(run: RunDirectory, setup: Setup) -> Params:
    """The parameters that the run's scales are for: its own, or the float network's.

    Raises:
      UserError: its own are missing, damaged or those of another network.
    """
    if not _changes_params(setup):
        return setup.model.params
    if not run.has(PARAMS):
        raise UserError(
            f"run '{run.path}' lacks {PARAMS}, which its chain of initialisers writes: run it again"
        )
    arrays, expected = run.read_arrays(PARAMS), flatten(setup.model.params)
    added = {name for name in arrays if f"/{CORRECTION}/" in name}
    shapes = {name: leaf.shape for name, leaf in arrays.items() if name not in added}
    corrected = "block_linear" in setup.config.calibration.chain
    if shapes != {name: leaf.shape for name, leaf in expected.items()} or bool(added) != corrected:
        raise UserError(f"the parameters in '{run.path}' do not fit its config: run it again")
    return unflatten({name: jnp.asarray(arrays[name]) for name in (*expected, *sorted(added))})


def read_networks(run: RunDirectory, setup: Setup) -> dict[str, Scales]:
    """The run's scales: `init` and, where the search has ended, `final`.

    Raises:
      UserError: a file is missing or damaged, or holds scales of other sites than the config's.
    """
    expected = {name for name, spec in setup.specs if spec.has_scale}
    networks = {"init": run.read_scales(INIT_SCALES)}
    if run.has(FINAL_SCALES):
        networks["final"] = run.read_scales(FINAL_SCALES)
    for name, scales in networks.items():
        if set(scales) != expected:
            wrong = ", ".join(sorted(set(scales) ^ expected)[:3])
            raise UserError(
                f"the {name} scales in '{run.path}' do not fit its config: {wrong} missing or extra"
            )
    return networks
