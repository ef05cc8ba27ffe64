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


@dataclass(frozen=True, kw_only=True)
class MetricOverSeeds:
    """One metric of a method: means over its seeds with Student's t intervals.

    Attributes:
      ranges: after the calibration chain's first link. None: the chain has no other link, or the metric is
        not measured there, or the result is of an older version.
      init: after the chain, where the method starts.
      final: where it ended.
      change: what the method's own moves made, final - init.
      wins: how often it ended better.
    """

    ranges: Interval | None = None
    init: Interval
    final: Interval
    change: Interval
    wins: Wins


@dataclass(frozen=True, kw_only=True)
class MethodResult:
    """A method over its seeds. Accuracies are None if the images have no labels.

    Attributes:
      top1: of the evaluation images, as the next four.
      top5: so.
      agreement: so.
      kl: so.
      info_nce: so.
      calibration_fitness: what was minimised.
      chain: the names of the calibration chain's links; empty: the result is of an older version.
      seeds: one for each run.
      budget_spent: mean over seeds.
      seconds_search: mean over seeds.
    """

    top1: MetricOverSeeds | None = None
    top5: MetricOverSeeds | None = None
    agreement: MetricOverSeeds
    kl: MetricOverSeeds
    info_nce: MetricOverSeeds
    calibration_fitness: MetricOverSeeds
    chain: tuple[str, ...] = ()
    seeds: tuple[int, ...]
    budget_spent: float
    seconds_search: float


@dataclass(frozen=True, kw_only=True)
class ComparisonResult:
    """The result of `run_compare`. `comparison.json` holds it.

    Attributes:
      run_dir: the directory; it is not in the file.
      name: the name of the comparison.
      budget: candidate-images that each run may spend.
      seeds: the seeds of the runs.
      reference: the method with which the others are compared.
      varies: parts of the configs in which methods differ on purpose.
      fitness: what all methods minimise; None: they differ, or the result is of an older version.
      methods: the methods by name.
      trajectories: for every method, one trajectory of each seed.
    """

    kind: Literal["comparison"] = "comparison"
    run_dir: Path
    name: str
    budget: int
    seeds: tuple[int, ...]
    reference: str | None
    varies: tuple[str, ...] = ()
    fitness: str | None = None
    methods: dict[str, MethodResult]
    trajectories: dict[str, tuple[tuple[TrajectoryPoint, ...], ...]]
