"""Pictures of lines: one loss along several directions, and several losses along one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from evolq_jax.figures.style import (
    ACROSS,
    GUIDE,
    Limits,
    line_style,
    name_axes,
    one_column,
    panels,
    set_limits,
)
from evolq_jax.landscape.pictures.words import loss_label

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LEGEND = 12  # rows


def losses_figure(
    x: np.ndarray, lines: np.ndarray, columns: Sequence[str], *, units: Sequence[str], label: str
) -> Figure:
    """Several losses [columns, T] along one line, a panel each, in their own units."""
    figure = one_column(0.35 + 0.8 * -(-len(columns) // ACROSS))
    drawn = panels(figure, len(columns))
    for axes, column, unit, line in zip(drawn, columns, units, lines, strict=True):
        axes.plot(x, line, **line_style(0))
        name_axes(axes, "", "", ticks=4)
        axes.set_title(loss_label(column, unit), loc="left", pad=2)
        _mark_origin(axes, x)
    figure.supxlabel(label)
    return figure


def lines_figure(
    x: np.ndarray, lines: np.ndarray, *, label: str, name: str, limits: Limits | None = None
) -> Figure:
    """One loss along several directions [directions, T], in its unit."""
    figure = one_column(2.0)
    axes = figure.add_subplot()
    for number, line in enumerate(lines):
        axes.plot(x, line, **line_style(number), linewidth=0.8, label=str(number + 1))
    name_axes(axes, label, name)
    set_limits(axes, limits)
    _mark_origin(axes, x)
    if len(lines) > 1:
        figure.legend(
            *axes.get_legend_handles_labels(),
            title="direction",
            loc="outside right upper",
            handlelength=1.4,
            ncol=-(-len(lines) // LEGEND),
        )
    return figure


def _mark_origin(axes: Axes, x: np.ndarray) -> None:
    """A dashed line at 0, where the scan has it."""
    if x[0] <= 0 <= x[-1]:
        axes.axvline(0.0, **GUIDE)
