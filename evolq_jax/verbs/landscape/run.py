"""The verb `landscape`."""

import time
from pathlib import Path

import jax
import numpy as np

from evolq_jax.config.experiment import Experiment
from evolq_jax.devices.precision import matmul_precision
from evolq_jax.landscape.config import LandscapeConfig
from evolq_jax.landscape.scan import Program, scan
from evolq_jax.pipeline.load import Setup, load_model
from evolq_jax.pipeline.watcher import Silent, Watcher
from evolq_jax.runs.directory import RunDirectory
from evolq_jax.runs.loaded_network import record_network
from evolq_jax.runs.preemption import preemptible
from evolq_jax.runs.results.files import write_result
from evolq_jax.runs.results.landscape import LandscapeResult
from evolq_jax.runs.unfinished import continued_run
from evolq_jax.verbs.landscape.design import Design, make_design, open_target
from evolq_jax.verbs.landscape.inputs import Inputs, load_inputs
from evolq_jax.verbs.landscape.pictures import write_pictures
from evolq_jax.verbs.landscape.record import SCAN, PointLog, write_arrays
from evolq_jax.verbs.landscape.summary import arrays_of, jaggedness_of, metadata_of, provenance_of


def run_landscape(
    target: str | Path | Experiment,
    landscape: LandscapeConfig | None = None,
    run_dir: str | Path | None = None,
    watcher: Watcher | None = None,
) -> LandscapeResult:
    """Scans the loss over scale space. A killed scan goes on where it stopped.

    Args:
      target: a config, which is calibrated first; or the directory of a run, whose scales are read.
      landscape: settings; None: those of the config.
      run_dir: a new directory to write to, or one with an unfinished scan of the same settings, which then
        goes on. None: the next free `runs/NAME-NNN`.
      watcher: told of the progress.

    Raises:
      UserError: something in the config, the run, the weights or the images is wrong.
      Preempted: SIGTERM came.
    """
    watcher, began = watcher or Silent(), time.monotonic()
    opened = open_target(target, landscape)
    with (
        matmul_precision(opened.config.precision),
        continued_run(run_dir, opened.config, SCAN) as run,
        preemptible(),
    ):
        setup = load_model(opened.config)
        record_network(run, opened.config, setup.model)
        design = make_design(setup, opened.run)
        inputs = load_inputs(setup, opened.run, design, watcher)
        losses = _compute(setup, design, inputs, run=run, watcher=watcher)
        metadata = metadata_of(setup, opened, design, inputs)
        arrays = arrays_of(design, losses)
        write_arrays(run, arrays, metadata)
        result = LandscapeResult(
            **vars(metadata),
            run_dir=run.path,
            jaggedness=jaggedness_of(design, losses),
            seconds=round(time.monotonic() - began, 2),
        )
        if opened.config.landscape.plots:
            write_pictures(run, arrays, result)
        write_result(run, result)
    return result


def program_of(setup: Setup, design: Design) -> Program:
    """The static settings for which the scan is compiled."""
    settings = setup.config.landscape
    image_chunk, point_chunk = settings.chunks()
    return Program(
        parts=setup.model.parts,
        specs=setup.specs,
        preprocessing=setup.model.preprocessing,
        losses=design.losses,
        log=design.log,
        image_chunk=image_chunk,
        point_chunk=point_chunk,
    )


def _compute(
    setup: Setup, design: Design, inputs: Inputs, *, run: RunDirectory, watcher: Watcher
) -> np.ndarray:
    """All losses [points, columns]. Those from before a kill are read, the others computed."""
    ground, pixels, _ = inputs
    program, mesh, total = program_of(setup, design), setup.mesh, len(design.grid.starts)
    log = PointLog(run, provenance_of(setup, inputs), len(design.columns))
    progress = watcher.stage("landscape")
    progress(log.done, total)
    images = jax.numpy.asarray(pixels)
    for batch, losses in scan(program, ground, design.grid, images, mesh=mesh, first=log.done):
        log.append(losses)
        progress(batch.last, total)
    return log.losses()
