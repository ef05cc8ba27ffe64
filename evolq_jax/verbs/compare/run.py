"""The verb `compare`: runs several methods, and sums up."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from evolq_jax.config.comparison import CALIBRATED, Comparison
from evolq_jax.errors import UserError
from evolq_jax.interrupt import going_on
from evolq_jax.pipeline.watcher import Silent, Watcher
from evolq_jax.runs.directory import CONFIG, hold_directory
from evolq_jax.runs.results.comparison import ComparisonResult
from evolq_jax.runs.results.files import write_result
from evolq_jax.runs.results.networks import (
    BaselineResult,
    Fitness,
    Improvement,
    SearchResult,
    TrajectoryPoint,
)
from evolq_jax.runs.unfinished import same_command
from evolq_jax.verbs.baseline import ensure_baseline
from evolq_jax.verbs.calibrate import ensure_calibrated
from evolq_jax.verbs.compare.pictures import write_pictures
from evolq_jax.verbs.compare.plan import check_methods, default_budget, shared_calibration, stage_configs
from evolq_jax.verbs.compare.summary import Run, summarise
from evolq_jax.verbs.search.run import ensure_search

VERBS = {"search": ensure_search, "baseline": ensure_baseline}


def run_compare(
    comparison: Comparison, run_dir: str | Path | None = None, watcher: Watcher | None = None
) -> ComparisonResult:
    """Runs every method with every seed at one budget, and sums up. Finished runs are not repeated.

    Args:
      comparison: methods, seeds and budget.
      run_dir: a new directory to write to, or that of an earlier attempt, which then goes on. None: the next
        free `runs/NAME-NNN`. Each stage of each run has a run directory inside, `METHOD/seed-N/STAGE`, and so
        has the network that all methods of a seed start from, `calibrated/seed-N`.
      watcher: told of the progress.

    Raises:
      UserError: something in a config, the weights, the images or the directory is wrong, or the directory
        belongs to another comparison.
      Preempted: SIGTERM came during a search.
    """
    watcher = watcher or Silent()
    budget = comparison.budget or default_budget(comparison.methods[0].config)
    check_methods(comparison, budget)
    runs: list[Run] = []
    trajectories: dict[str, list[tuple[TrajectoryPoint, ...]]] = {}
    with (
        hold_directory(run_dir, comparison.name) as directory,
        going_on(same_command(directory)),
    ):
        if directory.has(CONFIG):
            raise UserError(
                f"'{directory.path}' is the directory of a run: name another one for the comparison, with "
                "--run-dir"
            )
        progress, total = watcher.stage("comparing (runs)"), len(comparison.methods) * len(comparison.seeds)
        for seed in comparison.seeds:  # all methods of a seed first, so that a part can be read early
            start = _calibrated(comparison, directory.path / CALIBRATED / f"seed-{seed}", seed, watcher)
            for method in comparison.methods:
                place = directory.path / method.name / f"seed-{seed}"
                configs = stage_configs(
                    comparison, method, seed=seed, budget=budget, place=place, start=start
                )
                joined = _joined([VERBS[verb](config, path, watcher) for verb, config, path in configs])
                runs.append(Run(method.name, seed, joined))
                trajectories.setdefault(method.name, []).append(joined.trajectory)
                progress(len(runs), total)
        fitnesses = {method.config.search.fitness_name for method in comparison.methods}
        result = ComparisonResult(
            run_dir=directory.path,
            name=comparison.name,
            budget=budget,
            seeds=comparison.seeds,
            reference=comparison.reference,
            varies=comparison.varies,
            fitness=fitnesses.pop() if len(fitnesses) == 1 else None,
            methods=summarise(list(trajectories), runs, comparison.reference),
            trajectories={method: tuple(of_seeds) for method, of_seeds in trajectories.items()},
        )
        write_pictures(directory, result)
        write_result(directory, result)
    return result


def _calibrated(comparison: Comparison, place: Path, seed: int, watcher: Watcher) -> str | None:
    """The run that all methods of a seed start from, which has only calibrated; None: there is none."""
    config = shared_calibration(comparison)
    if config is None:
        return None
    ensure_calibrated(replace(config, seed=seed), place, watcher)
    return str(place)


def _joined(stages: Sequence[SearchResult | BaselineResult]) -> Improvement:
    """The results of all stages as one, from the first one's init to the last one's final."""
    first, last = stages[0], stages[-1]
    return replace(
        last,
        ranges=first.ranges,
        init=first.init,
        calibration_fitness=Fitness(first.calibration_fitness.init, last.calibration_fitness.final),
        budget_spent=sum(stage.budget_spent for stage in stages),
        seconds_search=sum(stage.seconds_search for stage in stages),
        trajectory=_trajectory(stages),
    )


def _trajectory(stages: Sequence[Improvement]) -> tuple[TrajectoryPoint, ...]:
    """The points of all stages, one stage after the other, on one axis of candidate-images."""
    points, spent = list[TrajectoryPoint](), 0.0
    for stage in stages:
        new = stage.trajectory[1:] if points else stage.trajectory
        points += [replace(point, candidate_images=spent + point.candidate_images) for point in new]
        spent += stage.budget_spent
    return tuple(points)
