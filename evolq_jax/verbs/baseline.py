"""The verb `baseline`: gradient descent in the search's place, all else being equal."""

from pathlib import Path

import jax
import jax.numpy as jnp

from evolq_jax.config.experiment import Experiment
from evolq_jax.devices.precision import matmul_precision
from evolq_jax.gradient.descend import descend, first_position
from evolq_jax.gradient.loss import Data, Problem
from evolq_jax.gradient.optimizers import make_optimizer
from evolq_jax.gradient.records import Descent, Evaluation, Position
from evolq_jax.pipeline.calibrate import Calibrated, first_tokens
from evolq_jax.pipeline.cost import out_of_memory
from evolq_jax.pipeline.images import count_calibration, count_evaluation, load_evaluation
from evolq_jax.pipeline.load import Setup, load_model
from evolq_jax.pipeline.searched import check_search, searched_sites
from evolq_jax.pipeline.teacher import teacher_of
from evolq_jax.pipeline.watcher import Silent, Watcher
from evolq_jax.quant.gradients import elements_sharing
from evolq_jax.quant.qparams import QParams
from evolq_jax.runs.checkpoints import Saved, open_checkpoints
from evolq_jax.runs.clock import Clock
from evolq_jax.runs.directory import RunDirectory, open_run
from evolq_jax.runs.milestones import Milestones
from evolq_jax.runs.preemption import Preemption, preemptible
from evolq_jax.runs.results.files import finished_result, write_result
from evolq_jax.runs.results.networks import BaselineResult
from evolq_jax.runs.unfinished import continued_run
from evolq_jax.verbs.init_network import BASELINE, init_network, remove_attempts
from evolq_jax.verbs.scores import score_run
from evolq_jax.verbs.search.plan import budget_of_search


def run_baseline(
    config: Experiment, run_dir: str | Path | None = None, watcher: Watcher | None = None
) -> BaselineResult:
    """Calibrates, descends and evaluates: `run_search` with gradients, and continued as that is.

    Same scales, init, calibration images, fitness, teacher and held-out images as the search of this
    config, and by default its budget.

    Args:
      config: the experiment.
      run_dir: where to write: a new directory, or one with an unfinished baseline of the same config, which
        is then continued. None: the next free `runs/NAME-NNN`.
      watcher: told how it goes on.

    Raises:
      UserError: something in the config, the weights, the images or the run directory is wrong.
      Preempted: SIGTERM came (in the main thread); what there was to save is saved.
    """
    watcher, clock = watcher or Silent(), Clock()
    with (
        matmul_precision(config.precision),
        continued_run(run_dir, config, BASELINE) as run,
        preemptible(f"go on with: evolq baseline {run.path} --resume") as preemption,
    ):
        setup = load_model(config)
        check_baseline(setup, count_calibration(setup, for_search=True))
        count_evaluation(setup)
        evaluation = load_evaluation(setup, watcher.stage("decoding evaluation images"))
        calibrated = init_network(run, BASELINE, setup, evaluation, clock=clock, watcher=watcher)
        budget = budget_of(setup, len(calibrated.images.pixels))
        with preemption.deferred(), out_of_memory("--search.image-chunk"):
            found = _descend(calibrated, budget, run, clock, preemption, watcher)
        with out_of_memory("--evaluation-batch"):
            scored = score_run(run, calibrated, found, evaluation, clock=clock, watcher=watcher)
        result = BaselineResult(
            **vars(scored), budget=budget, optimizer=config.baseline.optimizer, steps=found.steps
        )
        write_result(run, result)
        remove_attempts(run, BASELINE.verb)
    return result


def resume_baseline(run_dir: str | Path, watcher: Watcher | None = None) -> BaselineResult:
    """Goes on with the baseline of a run directory, as its config says; see `run_baseline`."""
    return run_baseline(open_run(run_dir).config(), run_dir, watcher)


def ensure_baseline(
    config: Experiment, run_dir: str | Path, watcher: Watcher | None = None
) -> BaselineResult:
    """The result of a config's baseline in this directory: read where it has finished, else run or continued.

    Raises:
      UserError: as `run_baseline`; or the directory holds a finished run of another config or verb.
    """
    return finished_result(config, run_dir, BaselineResult) or run_baseline(config, run_dir, watcher)


def check_baseline(setup: Setup, num_images: int) -> None:
    """Finds out before anything is computed what would stop the descent.

    Raises:
      UserError: the sites, the fitness, the optimiser, the mini-batch or the budget are wrong.
    """
    check_search(setup)
    search, baseline = setup.config.search, setup.config.baseline
    search.objectives()[0].check_whole()
    make_optimizer(baseline, 1)
    size = baseline.check_minibatch(num_images - search.num_held_out(num_images), search.batch_size)
    baseline.check_budget(budget_of(setup, num_images), size, num_images)


def budget_of(setup: Setup, num_images: int) -> int:
    """Candidate-images: the config's, or as many as the search would spend."""
    return setup.config.baseline.budget or round(budget_of_search(setup, num_images))


def _descend(
    calibrated: Calibrated,
    budget: int,
    run: RunDirectory,
    clock: Clock,
    preemption: Preemption,
    watcher: Watcher,
) -> Descent:
    config, problem = calibrated.setup.config, make_problem(calibrated.setup)
    data = make_data(calibrated, problem, watcher)
    progress = watcher.stage("descending (candidate-images)")
    with open_checkpoints(run.path, config.checkpoint, BASELINE.verb) as checkpoints:
        first = first_position(problem, data.start)
        saved = checkpoints.latest(first) or Saved(first, 0, clock.earlier)
        clock.earlier, lines, at = saved.seconds, saved.log_lines, saved.state
        milestones = Milestones(run, problem.specs, config.milestones, budget)
        if at.evaluated:
            milestones.offer(at.evaluated, at.fitness, at.best)
        with run.open_log(lines) as append:

            def on_evaluation(record: Evaluation, best: QParams) -> None:
                nonlocal lines
                append(record._asdict())
                lines += 1
                milestones.offer(record.candidate_images, record.best_fitness, best)

            def on_step(position: Position) -> None:
                checkpoints.offer(Saved(position, lines, clock.seconds()))
                progress(min(position.spent, budget), budget)
                preemption.check()

            key = jax.random.key(config.seed)
            return descend(problem, config.search, data, budget, key, on_evaluation, on_step, at)


def make_data(calibrated: Calibrated, problem: Problem, watcher: Watcher) -> Data:
    """The arrays of a descent from a calibrated network."""
    temperature = jnp.float32(calibrated.setup.config.search.temperature)
    teacher = teacher_of(calibrated, watcher, features=problem.objective.reads("features"))
    return Data(calibrated.params, calibrated.qparams, first_tokens(calibrated), teacher, temperature)


def make_problem(setup: Setup) -> Problem:
    """The static settings of a descent."""
    search, (image_chunk, _) = setup.config.search, setup.config.search.chunks()
    sites, baseline = searched_sites(setup), setup.config.baseline
    moving = tuple((site, spec) for site, spec in setup.specs if site in sites)
    return Problem(
        parts=setup.model.parts,
        specs=setup.specs,
        sites=sites,
        objective=search.objectives()[0],
        image_chunk=image_chunk,
        baseline=baseline,
        sharing=elements_sharing(moving, setup.sites) if baseline.lsq_scaling else (),
    )
