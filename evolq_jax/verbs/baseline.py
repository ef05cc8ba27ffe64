"""The verb `baseline`: gradient descent in the search's place. All else stays the same."""

import math
from pathlib import Path

import jax
import jax.numpy as jnp

from evolq_jax.config.experiment import Experiment
from evolq_jax.devices.precision import matmul_precision
from evolq_jax.gradient import driver
from evolq_jax.gradient.problem import Data, Problem, make_problem
from evolq_jax.gradient.state import DescentEnd, Evaluation, State, Step, init
from evolq_jax.pipeline.calibrate import Calibrated, first_tokens
from evolq_jax.pipeline.cost import out_of_memory
from evolq_jax.pipeline.evaluate import compile_ahead_of_scores
from evolq_jax.pipeline.images import count_calibration, count_evaluation, load_evaluation
from evolq_jax.pipeline.load import Setup, load_model
from evolq_jax.pipeline.searched import check_search
from evolq_jax.pipeline.teacher import teacher_of
from evolq_jax.pipeline.watcher import Silent, Standing, Watcher
from evolq_jax.runs.checkpoints import Saved, open_checkpoints
from evolq_jax.runs.clock import Clock
from evolq_jax.runs.directory import RunDirectory, open_run
from evolq_jax.runs.loaded_network import record_network
from evolq_jax.runs.milestones import Milestones
from evolq_jax.runs.preemption import Preemption, preemptible
from evolq_jax.runs.results.files import finished_result, write_result
from evolq_jax.runs.results.networks import BaselineResult
from evolq_jax.runs.unfinished import continued_run
from evolq_jax.verbs.init_network import BASELINE, check_start, init_network, remove_attempts
from evolq_jax.verbs.scores import score_run
from evolq_jax.verbs.search.plan import budget_of_search


def run_baseline(
    config: Experiment, run_dir: str | Path | None = None, watcher: Watcher | None = None
) -> BaselineResult:
    """Calibrates, descends and evaluates. A descent that was killed goes on where it was last saved.

    It has the scales, the init, the calibration images, the fitness, the teacher and the held-out images of
    this config's search and, by default, its budget. A continued descent ends with the same result, bit for
    bit, on the same hardware.

    Args:
      config: the experiment.
      run_dir: a new directory to write to, or one with an unfinished baseline of the same config, which then
        goes on. None: the next free `runs/NAME-NNN`.
      watcher: told of the progress.

    Raises:
      UserError: something in the config, the weights, the images or the run directory is wrong.
      Preempted: SIGTERM came (in the main thread); what there was to save is saved.
    """
    watcher, clock = watcher or Silent(), Clock()
    with (
        matmul_precision(config.precision),
        continued_run(run_dir, config, BASELINE) as run,
        preemptible() as preemption,
    ):
        setup = load_model(config)
        record_network(run, config, setup.model)
        check_baseline(setup, count_calibration(setup, for_search=True))
        check_start(setup)
        compile_ahead_of_scores(setup, setup.model, count_evaluation(setup))
        evaluation = load_evaluation(setup, watcher.stage("decoding evaluation images"))
        calibrated = init_network(run, BASELINE, setup, evaluation, clock=clock, watcher=watcher)
        problem = descent_problem(setup, len(calibrated.images.pixels))
        with preemption.deferred(), out_of_memory("--search.image-chunk"):
            found = _descend(calibrated, problem, run, clock, preemption=preemption, watcher=watcher)
        with out_of_memory("--evaluation-batch"):
            scored = score_run(run, calibrated, found, evaluation, clock=clock, watcher=watcher)
        result = BaselineResult(
            **vars(scored), budget=problem.budget, optimizer=config.baseline.optimizer, steps=found.steps
        )
        write_result(run, result)
        remove_attempts(run, BASELINE.verb)
    return result


def resume_baseline(run_dir: str | Path, watcher: Watcher | None = None) -> BaselineResult:
    """Goes on with the unfinished baseline of a run directory; see `run_baseline`."""
    return run_baseline(open_run(run_dir).config(), run_dir, watcher)


def ensure_baseline(
    config: Experiment, run_dir: str | Path, watcher: Watcher | None = None
) -> BaselineResult:
    """The result of a config's baseline in this directory. A finished one is read, any other goes to its end.

    Raises:
      UserError: as `run_baseline`; or the directory holds a finished run of another config or verb.
    """
    return finished_result(config, run_dir, BaselineResult) or run_baseline(config, run_dir, watcher)


def check_baseline(setup: Setup, num_images: int) -> None:
    """Refuses a descent that cannot work, before anything is computed.

    Raises:
      UserError: the sites, the fitness, the optimiser, the mini-batch or the budget are wrong.
    """
    check_search(setup)
    descent_problem(setup, num_images)


def descent_problem(setup: Setup, num_images: int) -> Problem:
    """The problem of a config's descent on so many calibration images.

    The budget is the config's, or what the search of this config would spend.

    Raises:
      UserError: as `evolq_jax.gradient.problem.make_problem`.
    """
    config = setup.config
    return make_problem(
        config.baseline,
        config.search,
        setup.model.parts,
        setup.specs,
        sites=setup.sites,
        num_images=num_images,
        budget=config.baseline.budget or round(budget_of_search(setup, num_images)),
    )


def descent_data(calibrated: Calibrated, problem: Problem, watcher: Watcher) -> Data:
    """The arrays of a descent that starts from a calibrated network."""
    return Data(
        params=calibrated.params,
        start=calibrated.qparams,
        tokens=first_tokens(calibrated),
        teacher=teacher_of(calibrated, watcher, features=problem.loss.objective.reads("features")),
        temperature=jnp.float32(calibrated.setup.config.search.temperature),
    )


def _descend(
    calibrated: Calibrated,
    problem: Problem,
    run: RunDirectory,
    clock: Clock,
    *,
    preemption: Preemption,
    watcher: Watcher,
) -> DescentEnd:
    """Descends, and writes the log, milestones and checkpoints."""
    config, budget = calibrated.setup.config, problem.budget
    data = descent_data(calibrated, problem, watcher)
    with open_checkpoints(run.path, config.checkpoint) as checkpoints:
        first = init(problem, data.start, jax.random.key(config.seed))
        saved = checkpoints.latest(first) or Saved(first, 0, clock.earlier)
        clock.earlier, lines, state = saved.seconds, saved.log_lines, saved.state
        milestones = Milestones(run, calibrated.setup.specs, config.milestones, budget)
        milestones.offer(state.evaluated, state.fitness, state.best)
        with run.open_log(lines) as append:
            for record in driver.run(problem, data, state):
                match record:
                    case Evaluation():
                        append(record._asdict())
                        lines += 1
                    case Step(state=state):
                        milestones.offer(state.evaluated, state.fitness, state.best)
                        checkpoints.offer(Saved(state, lines, clock.seconds()))
                        watcher.standing(_standing(config, state, total=budget))
                        preemption.check()
                    case DescentEnd():
                        watcher.standing(_standing(config, state, total=state.spent))
                        return record
    raise AssertionError("a descent tells of its end")


def _standing(config: Experiment, state: State, *, total: float) -> Standing:
    """Where a descent stands, for people who watch."""
    held_out = state.held_out_fitness
    return Standing(
        place=f"descent: step {state.steps}",
        done=min(state.spent, total),
        total=total,
        fitness=config.search.fitness_name,
        init=state.start_fitness,
        best=state.fitness,
        held_out=held_out if math.isfinite(held_out) else None,
    )
