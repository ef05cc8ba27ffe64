"""The summary of a comparison: means over seeds with intervals, and wins against init and reference."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import t as student

HIGHER_IS_BETTER = ("top1", "top5", "agreement")
METRICS = ("top1", "top5", "agreement", "kl", "info_nce")
FITNESS = "calibration_fitness"
LEVEL = 0.95


class Run(NamedTuple):
    """One method's run with one seed: its `result.json`."""

    method: str
    seed: int
    result: Mapping[str, Any]


def summarise(methods: Sequence[str], runs: Sequence[Run], reference: str | None) -> dict[str, Any]:
    """The numbers of each method over its seeds, by metric.

    Every metric has `init`, `final` and `change` (final - init): means over seeds with Student's t interval.
    It also has `wins`: the shares of seeds that end better than their init, and better than the reference's
    run with the same seed.

    Args:
      methods: names, in order.
      runs: every method with every seed.
      reference: a method's name, or None.
    """
    by_seed = {(run.method, run.seed): run.result for run in runs}
    summary = {}
    for method in methods:
        mine = [run for run in runs if run.method == method]
        others = [by_seed[reference, run.seed] for run in mine] if reference is not None else []
        results = [run.result for run in mine]
        summary[method] = {
            metric: numbers
            for metric in (*METRICS, FITNESS)
            if (numbers := _metric(metric, results, others, method == reference)) is not None
        } | {
            "seeds": [run.seed for run in mine],
            "budget_spent": float(np.mean([result["budget_spent"] for result in results])),
            "seconds_search": float(np.mean([result["seconds_search"] for result in results])),
        }
    return summary


def value(metric: str, network: str, result: Mapping[str, Any]) -> float | None:
    """A number of a run. `network` is `init` or `final`. None: the images have no labels."""
    return result[FITNESS][network] if metric == FITNESS else result[network][metric]


def interval(values: Sequence[float]) -> dict[str, float | None]:
    """Mean over seeds with Student's t interval. With one seed there are no ends."""
    mean, count = float(np.mean(values)), len(values)
    if count < 2:
        return {"mean": mean, "low": None, "high": None}
    half = float(student.ppf((1 + LEVEL) / 2, count - 1) * np.std(values, ddof=1) / np.sqrt(count))
    return {"mean": mean, "low": mean - half, "high": mean + half}


def _metric(
    metric: str, results: Sequence[Mapping[str, Any]], others: Sequence[Mapping[str, Any]], is_reference: bool
) -> dict[str, Any] | None:
    init, final = ([value(metric, name, result) for result in results] for name in ("init", "final"))
    if any(number is None for number in init):
        return None
    before, after = np.asarray(init, float), np.asarray(final, float)
    sign = 1 if metric in HIGHER_IS_BETTER else -1
    wins = {"init": float(np.mean(sign * (after - before) > 0))}
    if others and not is_reference:
        theirs = np.asarray([value(metric, "final", result) for result in others], float)
        wins["reference"] = float(np.mean(sign * (after - theirs) > 0))
    return {
        "init": interval(before.tolist()),
        "final": interval(after.tolist()),
        "change": interval((after - before).tolist()),
        "wins": wins,
    }
