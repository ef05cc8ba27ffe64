"""The arrays of a scan: the network, the point that is scanned around, the directions, the images."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from evolq_jax.data import fingerprint
from evolq_jax.data.draw import draw_indices
from evolq_jax.errors import UserError
from evolq_jax.landscape.config import DirectionName
from evolq_jax.landscape.directions import (
    Directions,
    between,
    keep_blocks,
    principal_directions,
    random_directions,
    ratio_direction,
)
from evolq_jax.landscape.losses import joint_objective
from evolq_jax.landscape.scan import Ground
from evolq_jax.pipeline.calibrate import Calibrated, calibrate_setup
from evolq_jax.pipeline.images import load_calibration, load_evaluation
from evolq_jax.pipeline.load import Setup
from evolq_jax.pipeline.teacher import teacher_of
from evolq_jax.pipeline.watcher import Watcher
from evolq_jax.quant.qparams import QParams
from evolq_jax.runs.directory import FINAL_SCALES, RunDirectory, open_run
from evolq_jax.runs.loaded_network import check_network
from evolq_jax.runs.provenance import weights_fingerprint
from evolq_jax.runs.results.files import check_fingerprints
from evolq_jax.runs.saved_network import SavedScales, read_params, read_scales
from evolq_jax.typing import Images, Params
from evolq_jax.verbs.landscape.design import Design


class Inputs(NamedTuple):
    """All arrays of a scan."""

    ground: Ground
    pixels: np.ndarray  # uint8 [B, height, width, channels]
    explained: tuple[float, ...]  # shares of the principal directions


def load_inputs(setup: Setup, run: RunDirectory | None, design: Design, watcher: Watcher) -> Inputs:
    """Loads the images, calibrates or reads the scales, and computes the teacher and the directions.

    Raises:
      UserError: images or scales cannot be read, or are not those of the run.
    """
    settings = setup.config.landscape
    params, saved, calibration = _network(setup, run, watcher)
    if settings.images == "evaluation":
        images = load_evaluation(setup, watcher.stage("decoding evaluation images"))
    elif calibration is not None:
        images = calibration
    else:
        images = load_calibration(setup, watcher.stage("decoding calibration images"))
    if run is not None:
        check_fingerprints(run, {f"{settings.images} images": fingerprint(images)})
    images = _subset(images, settings.check_batches(len(images.pixels)), setup.config.seed)
    calibrated = Calibrated(setup, params, saved.init, saved.ranges, images, 0.0)
    teacher = teacher_of(calibrated, watcher, features=joint_objective(design.losses).reads("features"))
    directions, explained = _directions(setup, design.moving, saved)
    labels = None if images.labels is None else jnp.asarray(images.labels, jnp.int32)
    temperatures = jnp.asarray(settings.temperatures, jnp.float32)
    ground = Ground(params, saved.named(settings.origin), directions, teacher, labels, temperatures)
    return Inputs(ground, np.asarray(images.pixels), explained)


def _network(
    setup: Setup, run: RunDirectory | None, watcher: Watcher
) -> tuple[Params, SavedScales, Images | None]:
    """Parameters, scales, and the calibration images if they had to be loaded."""
    if run is None:
        calibrated = calibrate_setup(setup, watcher, for_search=False)
        return calibrated.params, SavedScales(calibrated.ranges, calibrated.qparams, None), calibrated.images
    check_fingerprints(run, {"weights": weights_fingerprint(setup.model.params)})
    check_network(run, setup.model)
    return (
        read_params(run, setup.config, setup.model.params),
        read_scales(run, setup.specs, setup.blank_qparams),
        None,
    )


def _subset(images: Images, number: int, seed: int) -> Images:
    """A drawn subset. The first images would be of few classes, because sets are sorted by class."""
    chosen = draw_indices(len(images.pixels), number, seed)
    return Images(
        pixels=images.pixels[chosen],
        labels=None if images.labels is None else images.labels[chosen],
        names=tuple(images.names[index] for index in chosen),
    )


def _directions(
    setup: Setup, moving: Sequence[str], saved: SavedScales
) -> tuple[Directions, tuple[float, ...]]:
    """The directions of the scan, and the shares that principal ones explain. A plane has x, then y."""
    settings, parts = setup.config.landscape, setup.model.parts
    everywhere = saved.named(settings.origin)
    origin = {site: everywhere[site] for site in moving}
    count = 1 if settings.kind == "plane" else settings.num_directions
    principal, explained = Directions(), ()
    if "principal" in settings.axes:
        wanted = max(count, settings.axes.count("principal"))
        principal, explained = _principal(setup, origin, wanted)

    def along(axis: int, name: DirectionName) -> Directions:
        if name == "ratio":
            return ratio_direction(origin, settings.epsilon)
        if name == "between":
            return between(origin, _other_end(setup, origin, saved))
        if name == "principal":
            first = settings.axes[:axis].count("principal")
            return {site: leaf[first : first + count] for site, leaf in principal.items()}
        key = jax.random.fold_in(jax.random.key(setup.config.seed), axis)
        return random_directions(parts, origin, key, name=name, count=count, epsilon=settings.epsilon)

    by_axis = [along(axis, name) for axis, name in enumerate(settings.axes)]
    directions = {site: jnp.concatenate([leaves[site] for leaves in by_axis]) for site in moving}
    return (keep_blocks(parts, directions, settings.blocks) if settings.blocks else directions), explained


def _other_end(setup: Setup, origin: QParams, saved: SavedScales) -> QParams:
    """The other end of the line from the origin: another run's final scales, or this run's other scales."""
    settings = setup.config.landscape
    if settings.towards is None:
        return saved.named("init" if settings.origin == "final" else "final")
    return _final(setup, origin, settings.towards)


def _principal(setup: Setup, origin: QParams, count: int) -> tuple[Directions, tuple[float, ...]]:
    ends = [_final(setup, origin, path) for path in setup.config.landscape.results]
    points = {site: jnp.stack([end[site].scale for end in ends]) for site in origin}
    directions, shares = principal_directions(origin, points, min(count, len(ends)))
    return directions, tuple(float(share) for share in shares)


def _final(setup: Setup, origin: QParams, path: str) -> QParams:
    """The final scales of another run. It must have this network and these quantizers."""
    qparams = read_scales(open_run(path), setup.specs, setup.blank_qparams).named("final")
    for site, site_qparams in origin.items():
        if qparams[site].scale.shape != site_qparams.scale.shape:
            raise UserError(f"'{path}/{FINAL_SCALES}' is of another network: {site} has another shape")
    return qparams


def digest_arrays(arrays: Any) -> str:
    """One fingerprint of all leaves of a tree. A scan goes on only where it is the same."""
    leaves = {str(number): leaf for number, leaf in enumerate(jax.tree.leaves(arrays))}
    return weights_fingerprint(leaves)
