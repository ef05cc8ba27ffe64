"""The summary of a comparison: means over seeds with intervals, and wins over the init and the reference."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from evolq_jax.metrics import Interval
from evolq_jax.runs.results.comparison import MethodResult, MetricOverSeeds, Wins
from evolq_jax.runs.results.networks import Improvement

HIGHER_IS_BETTER = ("top1", "top5", "agreement")
FITNESS = "calibration_fitness"
LEVEL = 0.95


class Run(NamedTuple):
    """One method's run with one seed."""

    method: str
    seed: int
    result: Improvement


def summarise(methods: Sequence[str], runs: Sequence[Run], reference: str | None) -> dict[str, MethodResult]:
    """Sums up each method over its seeds.

    Args:
      methods: the methods' names, in the order of the summary.
      runs: every method with every seed.
      reference: the name of the method that the others are compared with; None: there is none.
    """
    by_seed = {(run.method, run.seed): run.result for run in runs}
    summary: dict[str, MethodResult] = {}
    for method in methods:
        mine = [run for run in runs if run.method == method]
        held_against = () if reference in (None, method) else [by_seed[reference, run.seed] for run in mine]
        summary[method] = _method([run.seed for run in mine], [run.result for run in mine], held_against)
    return summary


def _method(
    seeds: Sequence[int], results: Sequence[Improvement], others: Sequence[Improvement]
) -> MethodResult:
    def over_seeds(metric: str) -> MetricOverSeeds:
        return _over_seeds(metric, results, others)

    labelled, with_top5 = (
        all(getattr(result.init, metric) is not None for result in results) for metric in ("top1", "top5")
    )
    return MethodResult(
        top1=over_seeds("top1") if labelled else None,
        top5=over_seeds("top5") if with_top5 else None,
        agreement=over_seeds("agreement"),
        kl=over_seeds("kl"),
        info_nce=over_seeds("info_nce"),
        calibration_fitness=over_seeds(FITNESS),
        chain=results[0].setting.chain,
        seeds=tuple(seeds),
        budget_spent=float(np.mean([result.budget_spent for result in results])),
        seconds_search=float(np.mean([result.seconds_search for result in results])),
    )


def values(
    metric: str, network: Literal["ranges", "init", "final"], results: Sequence[Improvement]
) -> np.ndarray:
    """One metric of every run's network: float64 [runs]."""
    if metric == FITNESS:
        return np.asarray([getattr(result.calibration_fitness, network) for result in results], float)
    return np.asarray([getattr(getattr(result, network), metric) for result in results], float)


def interval(values: Sequence[float]) -> Interval:
    """The mean over seeds, with Student's t interval. With one seed the interval has no ends."""
    mean, count = float(np.mean(values)), len(values)
    if count < 2:
        return Interval(mean, None, None)
    from scipy.special import stdtrit  # here, since it takes 0.1 s; scipy.stats would take 0.7 s

    half = float(stdtrit(count - 1, (1 + LEVEL) / 2) * np.std(values, ddof=1) / np.sqrt(count))
    return Interval(mean, mean - half, mean + half)


def _over_seeds(
    metric: str, results: Sequence[Improvement], others: Sequence[Improvement]
) -> MetricOverSeeds:
    """One metric over seeds.

    `others` are the reference's runs with the same seeds. There are none for the reference itself, and if no
    reference is named.
    """
    before, after = values(metric, "init", results), values(metric, "final", results)
    sign = 1 if metric in HIGHER_IS_BETTER else -1
    against = None
    if others:
        against = float(np.mean(sign * (after - values(metric, "final", others)) > 0))
    ranges = None
    if metric != FITNESS and all(result.ranges is not None for result in results):
        ranges = interval(values(metric, "ranges", results).tolist())
    return MetricOverSeeds(
        ranges=ranges,
        init=interval(before.tolist()),
        final=interval(after.tolist()),
        change=interval((after - before).tolist()),
        wins=Wins(init=float(np.mean(sign * (after - before) > 0)), reference=against),
    )
