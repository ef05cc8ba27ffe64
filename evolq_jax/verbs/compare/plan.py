"""What a comparison would do, before it does it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from evolq_jax.config.comparison import Comparison, Method
from evolq_jax.config.experiment import Experiment
from evolq_jax.pipeline.images import count_calibration, count_evaluation
from evolq_jax.pipeline.load import load_model
from evolq_jax.pipeline.searched import check_search
from evolq_jax.runs.directory import RESULT
from evolq_jax.verbs.search.plan import budget_of_search, plan_search


def plan_compare(comparison: Comparison, run_dir: str | Path | None = None) -> dict[str, Any]:
    """What a comparison would do; writes nothing.

    Raises:
      UserError: as the comparison itself would, for weights, images and patterns.
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
    return {
        "methods": ", ".join(method.name for method in comparison.methods),
        "reference": comparison.reference or "none",
        "seeds": ", ".join(map(str, comparison.seeds)),
        "candidate_images_a_run": budget,
        "runs": len(runs),
        "finished_runs": done,
        "calibration_images": plan["calibration_images"],
        "evaluation_images": plan["evaluation_images"],
        # A backward pass counts as two forwards, so that the unit is one of time.
        "estimated_seconds": (len(runs) - done) * plan["estimated_seconds"],
        "device": plan["device"],
    }


def default_budget(config: Experiment) -> int:
    """Candidate-images that a config's search spends.

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
