"""What methods do at one budget: the result of `compare`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from evolq_jax.metrics import Interval
from evolq_jax.runs.results.networks import TrajectoryPoint


@dataclass(frozen=True)
class Wins:
    """On which share of the seeds a method ended better.

    Attributes:
      init: than its own init.
      reference: than the reference's run of the same seed; None: it is the reference, or there is none.
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
    """A method over its seeds; accuracies are None where the images have no labels."""

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
    """What `run_compare` found; `comparison.json` holds it.

    Attributes:
      run_dir: where everything is; not in the file.
      name: the comparison's.
      budget: candidate-images that each run may spend.
      seeds: of the runs.
      reference: the method that others are held against.
      methods: by name.
      trajectories: of every method, one of each seed.
    """

    kind: Literal["comparison"] = "comparison"
    run_dir: Path
    name: str
    budget: int
    seeds: tuple[int, ...]
    reference: str | None
    methods: dict[str, MethodResult]
    trajectories: dict[str, tuple[tuple[TrajectoryPoint, ...], ...]]
