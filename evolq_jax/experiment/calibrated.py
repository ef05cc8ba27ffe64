"""A network with first scales: calibrated, read from a run, or the result that another run ended with."""

import time
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P

from evolq_jax.calibration.chain import initialise
from evolq_jax.calibration.state import Calibration
from evolq_jax.errors import UserError
from evolq_jax.experiment.evaluate import compute_logits, quantize_weights
from evolq_jax.experiment.images import check_batches, load_calibration
from evolq_jax.experiment.run_directory import FINAL_SCALES, INIT_SCALES, PARAMS, RunDirectory, open_run
from evolq_jax.experiment.setup import Setup
from evolq_jax.experiment.watch import Progress, Watcher
from evolq_jax.mesh import DATA, Layout, fetch, gather, image_mesh, put_rows, replicate, spread
from evolq_jax.network import normalize
from evolq_jax.quant.sites import quant_sites
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


def calibrate(setup: Setup, watcher: Watcher, *, for_search: bool) -> Calibrated:
    """Loads the calibration images and runs the chain of initialisers.

    Raises:
      UserError: the images cannot be read, or do not fill whole batches.
    """
    config = setup.config
    images = load_calibration(setup, watcher.stage("decoding calibration images"))
    check_batches(config, len(images.pixels), for_search=for_search, skipped=len(images.skipped))
    began = time.monotonic()
    calibration = surroundings(setup, images.pixels, config.calibration.batch_size)

    def stage(name: str) -> Progress:
        return watcher.stage(f"calibrating ({name})")

    mesh = calibration.mesh
    params = replicate(mesh, setup.model.params)
    found = initialise(config.calibration.chain, calibration, params, stage)
    params, scales = fetch(mesh, gather(mesh, found))
    jax.block_until_ready(scales)
    return Calibrated(setup, params, scales, images, time.monotonic() - began)


def surroundings(setup: Setup, pixels: np.ndarray, batch_size: int) -> Calibration:
    """What links are given, on these images in batches of a size that divides them."""
    settings = setup.config.calibration
    preprocess = jax.jit(partial(normalize, setup.model.preprocessing))
    mesh = None if setup.mesh is None else image_mesh(setup.mesh, batch_size)
    batches = [pixels[i : i + batch_size] for i in range(0, len(pixels), batch_size)]
    return Calibration(
        setup.model.parts,
        setup.specs,
        setup.sites,
        [
            preprocess(jnp.asarray(batch) if mesh is None else put_rows(mesh, DATA, batch))
            for batch in batches
        ],
        settings.image_chunk,
        damping=settings.damping,
        pull=settings.pull,
        token_weights=settings.token_weights,
        fisher=settings.fisher,
        brecq=settings.brecq,
        clip=settings.clip,
        seed=setup.config.seed,
        mesh=mesh,
    )


def first_scales(setup: Setup, watcher: Watcher) -> Calibrated:
    """What a search or a descent begins with: the calibrated network, or the result of `config.start`.

    Raises:
      UserError: the images cannot be read or do not fill whole batches; or the run to start from has not
        finished, or is one of another network or with other quantizers.
    """
    config = setup.config
    if config.start is None:
        return calibrate(setup, watcher, for_search=True)
    run, began = open_run(config.start), time.monotonic()
    then = run.config()
    for part in ("model", "quant", "calibration"):
        if getattr(then, part) != getattr(config, part):
            raise UserError(f"start '{config.start}' has other `{part}` settings than this config")
    networks = read_networks(run, setup)
    if "final" not in networks:
        raise UserError(f"start '{config.start}' holds no result: it has not finished")
    images = load_calibration(setup, watcher.stage("decoding calibration images"))
    check_batches(config, len(images.pixels), for_search=True, skipped=len(images.skipped))
    seconds = time.monotonic() - began
    return Calibrated(setup, read_params(run, setup), networks["final"], images, seconds)


def teacher_logits(calibrated: Calibrated, watcher: Watcher) -> Array:
    """What the search imitates [B, C]: the float network, or the released code's variant of it."""
    return _teacher(calibrated, watcher.stage("computing the teacher"), features=False)


def teacher_features(calibrated: Calibrated, watcher: Watcher) -> Array:
    """What the teacher's classifiers read [B, ...]."""
    return _teacher(calibrated, watcher.stage("computing the teacher's features"), features=True)


def _teacher(calibrated: Calibrated, progress: Progress, *, features: bool) -> Array:
    setup, config = calibrated.setup, calibrated.setup.config
    integer = config.search.teacher == "integer_layer_norm"
    found = compute_logits(
        setup.model.parts,
        setup.specs if integer else (),
        setup.model.preprocessing,
        setup.model.params,
        calibrated.scales if integer else {},
        calibrated.images.pixels,
        config.calibration.image_chunk,
        progress,
        integer_norm_only=integer,
        features=features,
        mesh=setup.mesh,
    )
    return jnp.asarray(found)


def first_tokens(calibrated: Calibrated, layout: Layout | None = None) -> Array:
    """The calibration images at the first block's input, quantized at the first scales [B, ...].

    With a layout they lie on the devices as it says.
    """
    setup, specs = calibrated.setup, calibrated.setup.specs
    chunk, _ = setup.config.search.chunks()
    mesh = None if layout is None else layout.mesh
    enter = partial(embed, setup.model.parts, quant_sites(specs), chunk, setup.model.preprocessing)
    enter = jax.jit(spread(mesh, enter, (P(), P(), P(DATA)), P(DATA)))
    params, scales = replicate(mesh, (calibrated.params, calibrated.scales))
    pixels = calibrated.images.pixels
    on_devices = jnp.asarray(pixels) if layout is None else layout.put(pixels)
    return enter(quantize_weights(specs, params, scales), scales, on_devices)


def write_calibrated(run: RunDirectory, calibrated: Calibrated) -> None:
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
