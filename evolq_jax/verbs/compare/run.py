"""The verb `compare`."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from evolq_jax.config.comparison import Comparison, Method
from evolq_jax.config.experiment import Experiment
from evolq_jax.pipeline.watcher import Silent, Watcher
from evolq_jax.runs.directory import hold_directory
from evolq_jax.verbs.baseline import ensure_baseline
from evolq_jax.verbs.compare.plan import default_budget, stage_paths
from evolq_jax.verbs.compare.plot import Trajectory, draw
from evolq_jax.verbs.compare.summary import Run, summarise
from evolq_jax.verbs.search.run import ensure_search

COMPARISON = "comparison.json"
VERBS = {"search": ensure_search, "baseline": ensure_baseline}


def run_compare(
    comparison: Comparison, run_dir: str | Path | None = None, watcher: Watcher | None = None
) -> dict[str, Any]:
    """Runs every method with every seed at one budget, and sums up; finished runs are not run again.

    Args:
      comparison: methods, seeds and budget.
      run_dir: where to write: a new directory, or that of an earlier attempt, which is then continued.
        None: the next free `runs/NAME-NNN`. Each stage of each run is a run directory in it:
        `METHOD/seed-N/STAGE`.
      watcher: told how it goes on.

    Returns:
      The content of `comparison.json`, with the path under `run_dir`.

    Raises:
      UserError: something in a config, the weights, the images or the directory is wrong, or what is there
        is of another comparison.
      Preempted: SIGTERM came during a search.
    """
    watcher = watcher or Silent()
    budget = comparison.budget or default_budget(comparison.methods[0].config)
    runs: list[Run] = []
    trajectories: dict[str, list[Trajectory]] = {}
    with hold_directory(run_dir, comparison.name) as directory:
        progress, total = watcher.stage("comparing (runs)"), len(comparison.methods) * len(comparison.seeds)
        for seed in comparison.seeds:  # all methods of a seed first, so that a part can be read early
            for method in comparison.methods:
                place = directory.path / method.name / f"seed-{seed}"
                configs = stage_configs(comparison, method, seed, budget, place)
                stages = [VERBS[verb](config, path, watcher) for verb, config, path in configs]
                runs.append(Run(method.name, seed, _joined(stages)))
                trajectories.setdefault(method.name, []).append(_trajectory(stages))
                progress(len(runs), total)
        names = [method.name for method in comparison.methods]
        summary = {
            "name": comparison.name,
            "budget": budget,
            "seeds": list(comparison.seeds),
            "reference": comparison.reference,
            "methods": summarise(names, runs, comparison.reference),
            "trajectories": trajectories,
        }
        for name, content in draw(trajectories):
            directory.write(name, content)
        directory.write_json(COMPARISON, summary)
    return summary | {"run_dir": str(directory.path)}


def stage_configs(
    comparison: Comparison, method: Method, seed: int, budget: int, place: Path
) -> list[tuple[str, Experiment, Path]]:
    """(verb, config, directory) of each stage; it starts where the one before ended, with an equal budget."""
    share, start = budget // len(method.stages), method.config.start
    stages: list[tuple[str, Experiment, Path]] = []
    for stage, path in zip(method.stages, stage_paths(method, place), strict=True):
        config = replace(
            method.config,
            name=method.name,
            seed=seed,
            start=start,
            milestones=max(1, comparison.milestones // len(method.stages)),
            search=replace(method.config.search, budget=share),
            baseline=replace(method.config.baseline, budget=share),
        )
        stages.append((stage, config, path))
        start = str(path)
    return stages


def _joined(results: list[dict[str, Any]]) -> dict[str, Any]:
    """The result of stages as that of one run: from the first's init to the last's final."""
    first, last = results[0], results[-1]
    fitness = {"init": first["calibration_fitness"]["init"], "final": last["calibration_fitness"]["final"]}
    return last | {
        "init": first["init"],
        "calibration_fitness": fitness,
        "budget_spent": sum(result["budget_spent"] for result in results),
        "seconds_search": sum(result["seconds_search"] for result in results),
    }


def _trajectory(results: list[dict[str, Any]]) -> Trajectory:
    """The stages' points one after the other, on one axis of what was spent."""
    points, spent = [], 0.0
    for result in results:
        new = result["trajectory"][1:] if points else result["trajectory"]
        points += [point | {"candidate_images": spent + point["candidate_images"]} for point in new]
        spent += result["budget_spent"]
    return points
