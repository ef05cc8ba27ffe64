"""The plan of a comparison: its runs, and about how long they take."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from evolq_jax.config.comparison import CALIBRATED, Comparison, Method
from evolq_jax.config.experiment import Experiment
from evolq_jax.errors import UserError
from evolq_jax.paths import user_path
from evolq_jax.pipeline.images import count_calibration, count_evaluation
from evolq_jax.pipeline.load import load_model
from evolq_jax.pipeline.searched import check_search
from evolq_jax.runs.directory import RESULT
from evolq_jax.verbs.baseline import check_baseline
from evolq_jax.verbs.search.plan import budget_of_search, check_budget, plan_search


@dataclass(frozen=True, kw_only=True)
class ComparisonPlan:
    """What a comparison would do. The time is an estimate.

    Attributes:
      methods: their names.
      reference: the method that the others are compared with.
      seeds: every method runs with each of them.
      candidate_images_a_run: the budget of a run.
      runs: the number of runs.
      finished_runs: the number of runs that have finished, and do not run again.
      calibration_images: the number of images that a run uses.
      evaluation_images: the number of images that a run is scored on.
      estimated_seconds: the time of the other runs, at most. A candidate-image of a descent counts as one of
        a search. A run's time has that of calibrating, which the runs of a seed share.
      device: its kind.
    """

    kind: Literal["comparison plan"] = "comparison plan"
    methods: tuple[str, ...]
    reference: str | None
    seeds: tuple[int, ...]
    candidate_images_a_run: int
    runs: int
    finished_runs: int
    calibration_images: int
    evaluation_images: int
    estimated_seconds: float
    device: str


def plan_compare(comparison: Comparison, run_dir: str | Path | None = None) -> ComparisonPlan:
    """Plans a comparison. Writes nothing.

    Raises:
      UserError: the weights, the images or a pattern is wrong, as for the comparison itself.
    """
    budget = comparison.budget or default_budget(comparison.methods[0].config)
    runs = [(method, seed) for seed in comparison.seeds for method in comparison.methods]
    done = 0
    for method, seed in runs:
        if run_dir is not None:
            place = user_path(run_dir, "--run-dir") / method.name / f"seed-{seed}"
            done += all((path / RESULT).is_file() for path in stage_paths(method, place))
    check_methods(comparison, budget)
    first = comparison.methods[0].config
    plan = plan_search(replace(first, search=replace(first.search, budget=budget)))
    return ComparisonPlan(
        methods=tuple(method.name for method in comparison.methods),
        reference=comparison.reference,
        seeds=comparison.seeds,
        candidate_images_a_run=budget,
        runs=len(runs),
        finished_runs=done,
        calibration_images=plan.calibration_images,
        evaluation_images=plan.evaluation_images,
        estimated_seconds=(len(runs) - done) * plan.estimated_seconds,
        device=plan.device,
    )


def check_methods(comparison: Comparison, budget: int) -> None:
    """Finds out before anything is computed what would stop a method, or leave it no budget to work with.

    Raises:
      UserError: a method's sites, fitness, algorithm or optimiser is wrong, or the budget is too small.
    """
    for method in comparison.methods:
        for stage, config, _ in stage_configs(comparison, method, seed=0, budget=budget, place=Path()):
            setup = load_model(config)
            num_images = count_calibration(setup, for_search=True)
            try:
                if stage == "search":
                    check_search(setup)
                    check_budget(setup, num_images)
                else:
                    check_baseline(setup, num_images)
            except UserError as error:
                raise UserError(f"method '{method.name}': {error}") from error


def default_budget(config: Experiment) -> int:
    """The candidate-images that the search of a config spends.

    Raises:
      UserError: the model, the images or the searched sites are wrong.
    """
    setup = load_model(config)
    check_search(setup)
    count_evaluation(setup)
    return round(budget_of_search(setup, count_calibration(setup, for_search=True)))


def shared_calibration(comparison: Comparison) -> Experiment | None:
    """The experiment whose calibrated network all methods start from.

    None: each method calibrates by itself. Methods differ in it on purpose, or start from another run, or a
    limit of memory decides how many images run at once, method by method.
    """
    first = comparison.methods[0].config
    if comparison.varies or first.start or any(method.config.memory for method in comparison.methods):
        return None
    return Experiment(
        CALIBRATED,
        model=first.model,
        data=first.data,
        quant=first.quant,
        calibration=first.calibration,
        mesh=first.mesh,
        precision=first.precision,
    )


def stage_configs(
    comparison: Comparison, method: Method, *, seed: int, budget: int, place: Path, start: str | None = None
) -> list[tuple[str, Experiment, Path]]:
    """The verb, config and directory of each stage of a run.

    All stages have the same share of the budget. Each starts from the result of the one before, the first one
    from the run `start`, or where its config says.
    """
    share, start = budget // len(method.stages), method.config.start or start
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


def stage_paths(method: Method, place: Path) -> list[Path]:
    """The run directories of a method's stages."""
    return [place / f"{number + 1}-{stage}" for number, stage in enumerate(method.stages)]
