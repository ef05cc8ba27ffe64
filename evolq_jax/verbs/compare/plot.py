"""The picture of a comparison: quality against budget, one line per method, with its spread over seeds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from evolq_jax.figures import COLOURS, COLUMN_WIDTH, STYLES, name_axes, render
from evolq_jax.runs.results.networks import TrajectoryPoint
from evolq_jax.verbs.compare.summary import HIGHER_IS_BETTER

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Trajectory = Sequence[TrajectoryPoint]  # of one run
LABELS = {
    "calibration_fitness": "calibration fitness",
    "kl": "held-out KL (nats)",
    "info_nce": "held-out infoNCE",
    "agreement": "held-out agreement (%)",
    "top1": "held-out top-1 (%)",
}


def draw(trajectories: Mapping[str, Sequence[Trajectory]]) -> Iterator[tuple[str, bytes]]:
    """Draws the picture as PNG and SVG: (name, content) of each file. Every metric of all runs has a panel.

    Args:
      trajectories: by method, one trajectory for each seed.
    """
    yield from render(("quality", quality_figure(runs)) for runs in (trajectories,))


def quality_figure(trajectories: Mapping[str, Sequence[Trajectory]]) -> Figure:
    """Draws metrics against the budget: the mean over seeds, with a shade from the lowest to the highest."""
    from matplotlib.figure import Figure

    points = [point for runs in trajectories.values() for run in runs for point in run]
    metrics = [metric for metric in LABELS if all(getattr(point, metric) is not None for point in points)]
    figure = Figure(figsize=(COLUMN_WIDTH, 1.5 * len(metrics) + 0.4), layout="constrained")
    panels = figure.subplots(len(metrics), 1, sharex=True, squeeze=False)[:, 0]
    for axes, metric in zip(panels, metrics, strict=True):
        for number, (method, runs) in enumerate(trajectories.items()):
            budget, low, mean, high = spread(runs, metric)
            colour = COLOURS[number % len(COLOURS)]
            style = STYLES[number // len(COLOURS) % len(STYLES)]
            axes.plot(budget, mean, color=colour, linestyle=style, label=method)
            axes.fill_between(budget, low, high, color=colour, alpha=0.15, linewidth=0)
        name_axes(axes, "candidate-images" if axes is panels[-1] else "", LABELS[metric])
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncol=2, frameon=False)
    return figure


def spread(runs: Sequence[Trajectory], metric: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Budgets [points], and the lowest, mean and highest value of the runs at each of them.

    The budgets are those at which any run has a point, from the first that all runs have reached. Between its
    points, a run keeps its value.
    """
    budgets = np.unique(np.concatenate([[point.candidate_images for point in run] for run in runs]))
    first = max(run[0].candidate_images for run in runs)
    budgets = budgets[budgets >= first]
    factor = 100 if metric in HIGHER_IS_BETTER else 1
    rows = []
    for run in runs:
        own = np.array([point.candidate_images for point in run])
        values = factor * np.array([getattr(point, metric) for point in run], float)
        rows.append(values[np.searchsorted(own, budgets, side="right") - 1])
    table = np.stack(rows)
    return budgets, table.min(0), table.mean(0), table.max(0)
