"""The picture of a comparison: quality against budget, a line for each method, with its spread over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from evolq_jax.figures.page import Shown, Table, page
from evolq_jax.figures.picture import Picture, render
from evolq_jax.figures.style import ACROSS, line_style, name_axes, one_column, panels
from evolq_jax.runs.directory import COMPARISON, INDEX, RunDirectory
from evolq_jax.runs.results.comparison import ComparisonResult
from evolq_jax.runs.results.networks import TrajectoryPoint
from evolq_jax.verbs.compare.summary import FITNESS, HIGHER_IS_BETTER

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Trajectory = Sequence[TrajectoryPoint]  # of one run
LABELS = {
    FITNESS: "calibration fitness",
    "kl": "KL to float (nats)",
    "info_nce": "infoNCE",
    "agreement": "agreement with float (%)",
    "top1": "top-1 (%)",
}
LONG_NAME = 24  # letters of a method, beyond which two do not fit beside each other
THOUSANDS = 10_000  # from this budget on, ticks count thousands
CAPTION = (
    "Quality against budget, means over seeds; the shade goes from the lowest to the highest seed. "
    "Calibration fitness is on the images that were searched on, all else on the evaluation images. Where a "
    "method spent less than the others, a thin line goes on with its result."
)


class Spread(NamedTuple):
    """A metric of several runs: the lowest, mean and highest value at each budget, arrays [points]."""

    budgets: np.ndarray
    low: np.ndarray
    mean: np.ndarray
    high: np.ndarray


def write_pictures(directory: RunDirectory, result: ComparisonResult) -> None:
    """Draws the picture of a comparison, and writes it with a page that shows it.

    infoNCE has a panel where it was minimised, or where methods differ in what they minimise.
    """
    minimised = result.fitness is None or "info_nce" in result.fitness
    metrics = [metric for metric in LABELS if metric != "info_nce" or minimised]
    make = partial(quality_figure, result.trajectories, metrics, result.budget)
    for name, caption, files in render([Picture("quality", CAPTION, make)]):
        paths = {kind: f"{name}.{kind}" for kind in files}
        for kind, content in files.items():
            directory.write(paths[kind], content)
        about = f"{result.budget:,} candidate-images a run, {len(result.seeds)} seeds"
        shown = page(
            result.name,
            about,
            pictures=[Shown(caption, paths)],
            tables=[_numbers(result)],
            files={COMPARISON: "the numbers"},
        )
        directory.write(INDEX, shown)


def _numbers(result: ComparisonResult) -> Table:
    """Start and end of each method, means over seeds."""
    rows: list[list[str]] = []
    for method, numbers in result.methods.items():
        for metric, label in LABELS.items():
            found, factor = getattr(numbers, metric), 100 if metric in HIGHER_IS_BETTER else 1
            if found is not None:
                means = (f"{factor * each.mean:.4g}" for each in (found.init, found.final))
                rows.append([method, label, *means])
    return Table("Means over seeds", rows, ("method", "", "start", "final"))


def quality_figure(
    trajectories: Mapping[str, Sequence[Trajectory]], metrics: Sequence[str], budget: float = 0.0
) -> Figure:
    """Draws metrics against the budget, a panel each. What a run did not measure has no panel.

    Args:
      trajectories: by method, one trajectory for each seed.
      metrics: of `LABELS`.
      budget: what each method may spend, in candidate-images. All lines reach at least as far.
    """
    points = [point for runs in trajectories.values() for run in runs for point in run]
    metrics = [metric for metric in metrics if all(getattr(point, metric) is not None for point in points)]
    end = max(budget, *(point.candidate_images for point in points))
    down = -(-len(metrics) // ACROSS)
    beside = ACROSS if max(map(len, trajectories)) <= LONG_NAME else 1
    rows = -(-len(trajectories) // beside)
    figure = one_column(0.25 + 1.3 * down + 0.14 * rows)
    drawn = panels(figure, len(metrics))
    for axes, metric in zip(drawn, metrics, strict=True):
        for number, (method, runs) in enumerate(trajectories.items()):
            _draw(axes, spread(runs, metric), end, {**line_style(number), "label": method})
        name_axes(axes, "", "", ticks=4)
        axes.set_title(LABELS[metric], loc="left", pad=3)
        _name_budget(axes, end)
    figure.supxlabel("budget, candidate-images" + (" in thousands" if end >= THOUSANDS else ""))
    handles, names = drawn[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncol=beside)
    return figure


def _draw(axes: Axes, found: Spread, end: float, style: dict[str, Any]) -> None:
    """One method: its mean and its spread, and a thin line from its last point to the end of all."""
    axes.plot(found.budgets, found.mean, **style)
    axes.fill_between(found.budgets, found.low, found.high, color=style["color"], alpha=0.15, linewidth=0)
    axes.plot((found.budgets[-1], end), (found.mean[-1],) * 2, color=style["color"], linewidth=0.5)


def _name_budget(axes: Axes, end: float) -> None:
    """Ticks in thousands, where numbers are long."""
    if end >= THOUSANDS:
        axes.xaxis.set_major_formatter(lambda value, _: f"{value / 1000:g}")


def spread(runs: Sequence[Trajectory], metric: str) -> Spread:
    """One metric of a method's runs.

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
    return Spread(budgets, table.min(0), table.mean(0), table.max(0))
