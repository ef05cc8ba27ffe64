"""The design of a scan: its grid and its losses, checked before anything is computed."""

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from evolq_jax.config.experiment import Experiment
from evolq_jax.data import open_source
from evolq_jax.errors import UserError
from evolq_jax.figures.picture import check_plotting
from evolq_jax.landscape.config import USUAL_BATCH, LandscapeConfig
from evolq_jax.landscape.directions import IN_LOGARITHM, RANDOM
from evolq_jax.landscape.grid import Grid, make_grid
from evolq_jax.landscape.losses import Column, Loss, columns_of, make_losses
from evolq_jax.network.sites import is_stacked
from evolq_jax.notes import say_once
from evolq_jax.objective.objective import Objective
from evolq_jax.pipeline.images import count_calibration, count_evaluation
from evolq_jax.pipeline.load import Setup
from evolq_jax.quant.spec import select
from evolq_jax.runs.directory import FINAL_SCALES, INIT_SCALES, RunDirectory, open_run


class Target(NamedTuple):
    """What is scanned."""

    config: Experiment
    run: RunDirectory | None  # the run that has the scales; None: the config is calibrated first

    @property
    def name(self) -> str:
        """A name for people: the run's path, or the config's name."""
        return self.config.name if self.run is None else str(self.run.path)


class Design(NamedTuple):
    """What a scan computes, and where."""

    grid: Grid
    moving: tuple[str, ...]  # the sites whose scales move
    losses: tuple[Loss, ...]
    columns: tuple[Column, ...]
    left_out: tuple[str, ...]  # losses that need what is not there: labels, or more than one output
    num_images: int
    num_directions: int
    log: tuple[bool, ...]  # by axis: whether it moves the logarithm of scales


def open_target(target: str | Path | Experiment, landscape: LandscapeConfig | None) -> Target:
    """Opens a config, or a run directory with its own config. `landscape` replaces the config's settings.

    Raises:
      UserError: the target is no run directory.
    """
    if isinstance(target, Experiment):
        config, run = target, None
    else:
        run = open_run(target)
        config = run.config()
    if landscape is not None:
        config = replace(config, landscape=landscape)
    return Target(config, run)


def make_design(setup: Setup, run: RunDirectory | None) -> Design:
    """Checks everything that can be known without decoding an image or running the network.

    Raises:
      UserError: sites, blocks, scales, images, losses or the drawing library are missing.
    """
    settings = setup.config.landscape
    if settings.plots:
        check_plotting(", or go without: --landscape.no-plots")
    moving = moving_sites(setup)
    _check_qparams(settings, run)
    available, labelled = _count_images(setup, run)
    batch_size = settings.batch_for(settings.num_images or available)
    losses = make_losses(
        settings.losses,
        batch_size=batch_size,
        with_labels=labelled,
        with_directions=setup.model.num_classes > 1,
    )
    if not losses:
        lacking = "the network's one output has no direction"
        if not labelled:
            lacking = f"the {settings.images} images have no labels"
        raise UserError(
            f"{lacking}, which {' and '.join(settings.losses)} need: name other landscape.losses or images"
        )
    number, num_images = num_directions(settings), settings.check_batches(available)
    if settings.batch_size is None and batch_size != USUAL_BATCH and _is_contrastive(losses):
        say_once(
            f"{num_images} images make batches of {batch_size}, not {USUAL_BATCH} (landscape.batch_size)"
        )
    return Design(
        grid=make_grid(settings, setup.model.parts, moving, number),
        moving=moving,
        losses=losses,
        columns=columns_of(losses, settings.temperatures),
        left_out=tuple(name for name in settings.losses if name not in {loss.name for loss in losses}),
        num_images=num_images,
        num_directions=number,
        log=tuple(name in IN_LOGARITHM for name in settings.axes),
    )


def _is_contrastive(losses: tuple[Loss, ...]) -> bool:
    return any(term.contrastive for loss in losses if isinstance(loss, Objective) for _, term in loss.terms)


def num_directions(settings: LandscapeConfig) -> int:
    """The number of directions of a scan. A plane has two; `ratio` and `between` have one."""
    if settings.kind == "plane":
        return 2
    if settings.direction == "principal":
        return min(settings.num_directions, len(settings.results))
    return settings.num_directions if settings.direction in RANDOM else 1


def moving_sites(setup: Setup) -> tuple[str, ...]:
    """The sites whose scales move.

    Raises:
      UserError: a pattern matches no site with scales; blocks are asked for and all sites lie outside blocks;
        or a block does not exist.
    """
    settings, parts = setup.config.landscape, setup.model.parts
    chosen = select(settings.sites, [name for name, spec in setup.specs if spec.has_scale])
    if settings.kind != "layers" and not settings.blocks:
        return chosen
    inside = tuple(name for name in chosen if is_stacked(parts, name))
    if not inside:
        raise UserError(f"landscape.sites ({', '.join(settings.sites)}) name no site of the network's blocks")
    used = {name.split("/")[0] for name in inside}
    depth = max(segment.length for segment in parts.segments if segment.name in used)
    for block in settings.blocks:
        if not 0 <= block < depth:
            raise UserError(f"landscape.blocks names block {block}, but they run from 0 to {depth - 1}")
    return inside


def _check_qparams(settings: LandscapeConfig, run: RunDirectory | None) -> None:
    """Checks that the runs have the scales that the origin and the directions need."""
    if settings.origin == "final":
        if run is None:
            raise UserError("landscape.origin 'final' is a finished run's: give its directory, not a config")
        _check_finished(run, "set landscape.origin init")
    if "between" in settings.axes:
        if settings.towards is not None:
            _check_finished(open_run(settings.towards), "name another in landscape.towards")
        elif run is None:
            raise UserError(
                "landscape.direction 'between' needs two results: give a finished run's directory, or name "
                "one in landscape.towards"
            )
        else:
            _check_finished(run, "name another end in landscape.towards")
    if run is not None and not run.has(INIT_SCALES):
        raise UserError(f"run '{run.path}' has no {INIT_SCALES}: run it again")
    if "principal" in settings.axes:
        needed = settings.axes.count("principal")
        if len(settings.results) < needed:
            raise UserError(
                f"landscape.direction 'principal' needs {needed} or more finished runs in "
                f"landscape.results, and there are {len(settings.results)}"
            )
        for path in settings.results:
            _check_finished(open_run(path), "take it out of landscape.results")


def _check_finished(run: RunDirectory, remedy: str) -> None:
    if not run.has(FINAL_SCALES):
        raise UserError(f"run '{run.path}' has no {FINAL_SCALES}: its search has not finished; {remedy}")


def _count_images(setup: Setup, run: RunDirectory | None) -> tuple[int, bool]:
    """The number of images, and whether they have labels that fit the network's classes."""
    settings, data = setup.config.landscape, setup.config.data
    calibration = settings.images == "calibration"
    count = count_calibration(setup, for_search=False) if calibration or run is None else 0
    if not calibration:
        count = count_evaluation(setup)
    where, index = (data.calibration, None) if calibration else (data.evaluation, data.class_index)
    source = open_source(where, setup.model.preprocessing, index, data.tfds_dir)
    if source.max_label >= setup.model.config.num_classes:
        raise UserError(
            f"'{where}' has label {source.max_label}, but the network has {setup.model.config.num_classes} "
            "classes: take other images or weights"
        )
    return count, source.labels is not None
