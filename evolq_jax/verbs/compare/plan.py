"""The plan of a comparison: its runs, and about how long they take."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from evolq_jax.config.comparison import Comparison, Method
from evolq_jax.config.experiment import Experiment
from evolq_jax.pipeline.images import count_calibration, count_evaluation
from evolq_jax.pipeline.load import load_model
from evolq_jax.pipeline.searched import check_search
from evolq_jax.runs.directory import RESULT
from evolq_jax.verbs.search.plan import budget_of_search, plan_search


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
      estimated_seconds: the time of the other runs. A candidate-image of a descent counts as one of a search.
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
            place = Path(run_dir) / method.name / f"seed-{seed}"
            done += all((path / RESULT).is_file() for path in stage_paths(method, place))
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


def default_budget(config: Experiment) -> int:
    """The candidate-images that the search of a config spends.

    Raises:
      UserError: the model, the images or the searched sites are wrong.
    """
    setup = load_model(config)
    check_search(setup)
    count_evaluation(setup)
    return round(budget_of_search(setup, count_calibration(setup, for_search=True)))


def stage_paths(method: Method, place: Path) -> list[Path]:
    """The run directories of a method's stages."""
    return [place / f"{number + 1}-{stage}" for number, stage in enumerate(method.stages)]
