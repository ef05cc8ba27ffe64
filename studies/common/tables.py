"""Markdown tables of results, and the numbers that their cells hold."""

from collections.abc import Iterable, Sequence

import numpy as np

from evolq_jax.metrics import Interval
from evolq_jax.runs.results.networks import EvaluationResult, Improvement
from studies.common.runs import Row
from studies.common.subjects import BITS


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table."""
    lines = [list(head), ["---"] * len(head), *map(list, rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def means(runs: Sequence[Improvement], metric: str, *, digits: int, factor: float = 1) -> str:
    """A metric before and after a search, means over runs."""
    init, final = (mean(runs, network, metric) for network in ("init", "final"))
    return f"{factor * init:.{digits}f} → {factor * final:.{digits}f}"


def mean(runs: Sequence[Improvement | EvaluationResult], network: str, metric: str) -> float:
    """Of the network `init`, `final` or `float` the mean over runs."""
    return float(np.mean([getattr(getattr(run, network), metric) for run in runs]))


def changes(runs: Sequence[Improvement], metric: str, *, digits: int, factor: float = 1) -> str:
    """What each run's search changed, with its bootstrap interval over images."""
    return "; ".join(interval(getattr(run.delta, metric), digits=digits, factor=factor) for run in runs)


def interval(change: Interval, *, digits: int, factor: float = 1) -> str:
    """A change with its interval; without one where it has no ends (of a single seed)."""
    mean, *ends = (
        f"{factor * value:+.{digits}f}"
        for value in (change.mean, change.low, change.high)
        if value is not None
    )
    return f"{mean} [{', '.join(ends)}]" if ends else mean


def spread(values: Sequence[float], *, digits: int) -> str:
    """The mean with the lowest and highest, where there are several."""
    around = f" ({min(values):.{digits}f} to {max(values):.{digits}f})" if len(values) > 1 else ""
    return f"{np.mean(values):.{digits}f}{around}"


def init_table(results: Sequence[Row]) -> str:
    """Initialisations by scheme, bits and name: means over seeds, with the lowest and highest top-1."""
    keys = list(dict.fromkeys((r["scheme"], r["bits"], r["name"]) for r in results))
    rows: list[list[str]] = []
    for key in sorted(keys, key=lambda k: (k[0] != "matmul", list(BITS).index(k[1]))):
        runs = [r for r in results if (r["scheme"], r["bits"], r["name"]) == key]
        rows.append([*key, str(len(runs)), *init_cells(runs)])
    head = "scheme", "bits", "preset", "seeds", "top-1 (lowest to highest)", "agreement", "KL", "seconds"
    return markdown(head, rows)


def init_cells(runs: Sequence[Row]) -> list[str]:
    """Top-1 (with its range over seeds), agreement, KL and seconds of a setting."""
    agreement, kl, seconds = (np.mean([run[key] for run in runs]) for key in ("agreement", "kl", "seconds"))
    top1 = spread([100 * run["top1"] for run in runs], digits=1)
    return [top1, f"{100 * agreement:.1f}", f"{kl:.3f}", f"{seconds:.0f}"]
