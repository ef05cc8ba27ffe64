"""Pictures of a plane: cells seen from above, and a surface."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from evolq_jax.figures.style import (
    COLOUR_MAP,
    COLUMN_WIDTH,
    SMALL,
    TEXT,
    Limits,
    add_colour_bar,
    few_ticks,
    limits_of,
    name_axes,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FINE = 25  # points of an axis, from which on contour lines follow the cells and not their corners
LEVELS = 6  # of contour lines
SIDE, BESIDE, BELOW, ABOVE = 2.1, 0.48, 0.38, 0.22  # inches: of the square, and left of it, below and above
MARK: dict[str, Any] = {"linestyle": "none", "markeredgecolor": "black", "markerfacecolor": "white"}


def contour_figure(
    x: np.ndarray,
    y: np.ndarray,
    losses: np.ndarray,
    *,
    labels: Sequence[str],
    name: str,
    limits: Limits | None = None,
) -> Figure:
    """Losses [y, x] as one cell a point, with the origin and the minimum; on a fine grid also contour lines.

    Cells without a finite value are grey.
    """
    from matplotlib.figure import Figure

    width, height = COLUMN_WIDTH, SIDE + BELOW + ABOVE
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((BESIDE / width, BELOW / height, SIDE / width, SIDE / height), facecolor="0.8")
    shown, (low, high) = np.ma.masked_invalid(losses), limits or limits_of(losses) or (0.0, 1.0)
    cells = axes.pcolormesh(
        x, y, shown, shading="nearest", cmap=COLOUR_MAP, vmin=low, vmax=high, rasterized=True
    )
    if min(losses.shape) >= FINE and low < high:
        levels = few_ticks(LEVELS).tick_values(low, high)
        axes.contour(x, y, shown, levels=levels, colors="white", linewidths=0.4, alpha=0.7)
    _mark(axes, x, y, losses)
    name_axes(axes, labels[0], labels[1])
    add_colour_bar(axes, cells, name)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncol=2, handletextpad=0.2, borderpad=0.2)
    return figure


def _mark(axes: Axes, x: np.ndarray, y: np.ndarray, losses: np.ndarray) -> None:
    """Marks the origin, if it is in view, and the lowest of the points."""
    if x[0] <= 0 <= x[-1] and y[0] <= 0 <= y[-1]:
        axes.plot(0.0, 0.0, marker="P", markersize=5, markeredgewidth=0.5, label="origin", **MARK)
    if np.isfinite(losses).any():
        row, column = minimum_of(losses)
        label = f"minimum, {losses[row, column]:.4g}"
        axes.plot(x[column], y[row], marker="o", markersize=3.5, markeredgewidth=0.5, label=label, **MARK)


def minimum_of(losses: np.ndarray) -> tuple[int, int]:
    """The row and the column of the lowest finite value of losses [y, x]; of equal ones the first."""
    lowest = int(np.argmin(np.where(np.isfinite(losses), losses, np.inf)))
    return lowest // losses.shape[1], lowest % losses.shape[1]


def surface_figure(
    x: np.ndarray,
    y: np.ndarray,
    losses: np.ndarray,
    *,
    labels: Sequence[str],
    name: str,
    limits: Limits | None = None,
) -> Figure:
    """Losses [y, x] as a surface in three dimensions, coloured as the cells are."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(COLUMN_WIDTH, 2.6))
    axes: Any = figure.add_subplot(projection="3d")
    figure.subplots_adjust(left=0.02, right=0.9, bottom=0.06, top=1.06)
    low, high = limits or limits_of(losses) or (0.0, 1.0)
    options = {"rcount": len(y), "ccount": len(x), "vmin": low, "vmax": high, "cmap": COLOUR_MAP}
    edges = {"edgecolor": "black", "linewidth": 0.1, "antialiased": True, "rasterized": True, "shade": False}
    grid_x, grid_y = np.meshgrid(x, y)
    axes.plot_surface(grid_x, grid_y, np.clip(losses, low, high), **options, **edges)
    if low < high:
        axes.set_zlim(low, high)
    for axis, label in zip((axes.xaxis, axes.yaxis, axes.zaxis), (*labels, name), strict=True):
        axis.set_label_text(label.replace(", ", "\n", 1), fontsize=TEXT)
        axis.set_major_locator(few_ticks())
        axis.labelpad = -5
        axis.set_tick_params(pad=-3, labelsize=SMALL)
    axes.set_box_aspect((1, 1, 0.75), zoom=0.95)
    return figure
