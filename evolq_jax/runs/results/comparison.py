"""The result of `compare`: methods at one budget."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from evolq_jax.metrics import Interval
from evolq_jax.runs.results.networks import TrajectoryPoint


@dataclass(frozen=True)
class Wins:
    """The shares of seeds on which a method ended better.

    Attributes:
      init: better than its own init.
      reference: better than the reference's run with the same seed. None: the method is the reference, or
        there is no reference.
    """

    init: float
    reference: float | None = None


@dataclass(frozen=True)
class MetricOverSeeds:
    """One metric of a method: means over its seeds with Student's t intervals."""

    init: Interval
    final: Interval
    change: Interval  # final - init
    wins: Wins


@dataclass(frozen=True, kw_only=True)
class MethodResult:
    """A method over its seeds. Accuracies are None if the images have no labels."""

    top1: MetricOverSeeds | None = None
    top5: MetricOverSeeds | None = None
    agreement: MetricOverSeeds
    kl: MetricOverSeeds
    info_nce: MetricOverSeeds
    calibration_fitness: MetricOverSeeds
    seeds: tuple[int, ...]
    budget_spent: float  # mean over seeds
    seconds_search: float  # mean over seeds


@dataclass(frozen=True, kw_only=True)
class ComparisonResult:
    """The result of `run_compare`. `comparison.json` holds it.

    Attributes:
      run_dir: the directory; it is not in the file.
      name: the name of the comparison.
      budget: candidate-images that each run may spend.
      seeds: the seeds of the runs.
      reference: the method with which the others are compared.
      methods: the methods by name.
      trajectories: for every method, one trajectory of each seed.
    """

    kind: Literal["comparison"] = "comparison"
    run_dir: Path
    name: str
    budget: int
    seeds: tuple[int, ...]
    reference: str | None
    methods: dict[str, MethodResult]
    trajectories: dict[str, tuple[tuple[TrajectoryPoint, ...], ...]]
