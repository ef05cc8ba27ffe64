"""The verb `search`: calibrates, searches and evaluates."""

from pathlib import Path

import jax

from evolq_jax.config.experiment import Experiment
from evolq_jax.devices.precision import matmul_precision
from evolq_jax.pipeline.calibrate import Calibrated
from evolq_jax.pipeline.cost import fit_memory, out_of_memory
from evolq_jax.pipeline.evaluate import compile_ahead_of_scores
from evolq_jax.pipeline.images import count_calibration, count_evaluation, load_evaluation
from evolq_jax.pipeline.load import load_model
from evolq_jax.pipeline.searched import check_search, compile_ahead_of_search
from evolq_jax.pipeline.teacher import teacher_of
from evolq_jax.pipeline.watcher import Silent, Watcher
from evolq_jax.quantized.search import search_problem
from evolq_jax.runs.checkpoints import Saved, open_checkpoints
from evolq_jax.runs.clock import Clock
from evolq_jax.runs.directory import RunDirectory, open_run
from evolq_jax.runs.loaded_network import record_network
from evolq_jax.runs.milestones import Milestones
from evolq_jax.runs.preemption import Preemption, preemptible
from evolq_jax.runs.results.files import finished_result, write_result
from evolq_jax.runs.results.networks import Moves, SearchResult
from evolq_jax.runs.unfinished import continued_run
from evolq_jax.search import driver
from evolq_jax.search.state import Generation, SearchEnd, Visit, init, spent
from evolq_jax.verbs.init_network import SEARCH, check_start, init_network, remove_attempts
from evolq_jax.verbs.scores import score_run
from evolq_jax.verbs.search.plan import budget_of_search, check_budget
from evolq_jax.verbs.search.standing import standing_of


def run_search(
    config: Experiment, run_dir: str | Path | None = None, watcher: Watcher | None = None
) -> SearchResult:
    """Calibrates, searches and evaluates. A search that was killed goes on where it was last saved.

    A continued search ends with the same result, bit for bit, on the same hardware.

    Args:
      config: the experiment.
      run_dir: a new directory to write to, or one with an unfinished search of the same config, which then
        goes on. None: the next free `runs/NAME-NNN`.
      watcher: told of the progress.

    Raises:
      UserError: something in the config, the weights, the images or the run directory is wrong.
      Preempted: SIGTERM came (in the main thread); what there was to save is saved.
    """
    watcher, clock = watcher or Silent(), Clock()
    with (
        matmul_precision(config.precision),
        continued_run(run_dir, config, SEARCH) as run,
        preemptible() as preemption,
    ):
        setup = load_model(config)
        record_network(run, config, setup.model)
        check_search(setup)
        check_start(setup)
        num_images = count_calibration(setup, for_search=True)
        check_budget(setup, num_images)
        setup = fit_memory(setup, num_images)
        num_evaluation = count_evaluation(setup)
        compile_ahead_of_scores(setup, setup.model, num_evaluation)
        compile_ahead_of_search(setup, num_images)
        compile_ahead_of_scores(setup, setup.blank_network, num_evaluation)
        evaluation = load_evaluation(setup, watcher.stage("decoding evaluation images"))
        calibrated = init_network(run, SEARCH, setup, evaluation, clock=clock, watcher=watcher)
        with preemption.deferred(), out_of_memory("--search.population-chunk", "--search.image-chunk"):
            found = _search(calibrated, run, clock, preemption, watcher=watcher)
        with out_of_memory("--evaluation-batch"):
            scored = score_run(run, calibrated, found, evaluation, clock=clock, watcher=watcher)
        result = SearchResult(
            **vars(scored),
            budget=config.search.budget,
            evaluations=found.evaluations,
            calibration_fitness_noise=found.noise,
            moves=Moves(found.kept, found.visits),
        )
        write_result(run, result)
        remove_attempts(run, SEARCH.verb)
    return result


def resume_search(run_dir: str | Path, watcher: Watcher | None = None) -> SearchResult:
    """Goes on with the unfinished search of a run directory; see `run_search`."""
    return run_search(open_run(run_dir).config(), run_dir, watcher)


def ensure_search(config: Experiment, run_dir: str | Path, watcher: Watcher | None = None) -> SearchResult:
    """The result of a config's search in this directory. A finished one is read, any other goes to its end.

    Raises:
      UserError: as `run_search`; or the directory holds a finished run of another config or verb.
    """
    return finished_result(config, run_dir, SearchResult) or run_search(config, run_dir, watcher)


def _search(
    calibrated: Calibrated, run: RunDirectory, clock: Clock, preemption: Preemption, *, watcher: Watcher
) -> SearchEnd:
    """Searches, and writes the log, milestones and checkpoints."""
    setup, config = calibrated.setup, calibrated.setup.config
    teacher = teacher_of(calibrated, watcher, features=config.search.has_features)
    pixels, mesh = calibrated.images.pixels, setup.mesh
    problem, data = search_problem(calibrated.quantized, pixels, config.search, teacher, mesh=mesh)
    with open_checkpoints(run.path, config.checkpoint) as checkpoints:
        first = init(problem, calibrated.qparams, jax.random.key(config.seed))
        saved = checkpoints.latest(first) or Saved(first, 0, clock.earlier)
        clock.earlier, lines, state = saved.seconds, saved.log_lines, saved.state
        planned = budget_of_search(setup, problem.num_images)
        milestones = Milestones(run, setup.specs, config.milestones, planned)
        milestones.offer(spent(problem, state), float(state.fitness), state.qparams)
        with run.open_log(lines) as append:
            for record in driver.run(problem, data, state):
                match record:
                    case Generation():
                        append(record._asdict())
                        lines += 1
                        watcher.standing(standing_of(problem, state, planned=planned, now=record))
                        preemption.check()
                    case Visit(state=state):
                        milestones.offer(spent(problem, state), float(state.fitness), state.qparams)
                        checkpoints.offer(Saved(state, lines, clock.seconds()))
                    case SearchEnd():
                        watcher.standing(standing_of(problem, state, planned=planned, now=None))
                        return record
    raise AssertionError("a search tells of its end")
