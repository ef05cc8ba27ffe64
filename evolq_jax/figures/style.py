"""The style of all pictures: as wide as one column of a paper, in colours that everybody can tell apart.

Needs matplotlib, which is an extra: `pip install 'evolq_jax[plot]'`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMN_WIDTH = 3.3  # inches
ACROSS = 2  # panels
TICKS = 5  # at most, on an axis
# Okabe and Ito (2008), without their yellow, which is too light for a line.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
STYLES = ("-", "--", "-.", ":")
COLOUR_MAP = "cividis"  # Nuñez, Anderton and Renslow (2018)
GUIDE: dict[str, Any] = {"color": "0.6", "linewidth": 0.5, "linestyle": "--", "zorder": 0}  # marks a place
TEXT, SMALL = 7, 6  # points
RC: dict[Any, Any] = {
    "font.size": TEXT,
    "axes.labelsize": TEXT,
    "axes.titlesize": TEXT,
    "figure.labelsize": TEXT,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "legend.fontsize": SMALL,
    "legend.frameon": False,
    "lines.linewidth": 1.0,
    "axes.linewidth": 0.5,
    "xtick.major.width": 0.5,
    "ytick.major.width": 0.5,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "grid.linewidth": 0.3,
    "axes.formatter.useoffset": False,  # a tick says its value, not what to add to it
    "text.parse_math": False,  # names are shown as they are, a $ too
    "svg.fonttype": "none",  # text stays text
    "pdf.fonttype": 42,  # so too: TrueType, which editors and publishers take
    "svg.hashsalt": "evolq_jax",  # equal pictures are equal files
}
Limits = tuple[float, float]


def one_column(height: float) -> Figure:
    """An empty figure of one column's width and `height` inches, which lays itself out."""
    from matplotlib.figure import Figure

    return Figure(figsize=(COLUMN_WIDTH, height), layout="constrained")


def panels(figure: Figure, number: int) -> list[Axes]:
    """Panels beside each other and below, on one x axis; only the lowest have its numbers."""
    grid = figure.subplots(-(-number // ACROSS), ACROSS, sharex=True, squeeze=False).ravel()
    for place, axes in enumerate(grid):
        axes.tick_params(labelbottom=place + ACROSS >= number)
        if place >= number:
            axes.set_axis_off()
    return list(grid[:number])


def name_axes(axes: Axes, x: str, y: str, *, ticks: int = TICKS) -> None:
    """Names both axes and keeps their ticks few."""
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.margins(x=0)
    axes.xaxis.set_major_locator(few_ticks(ticks))
    axes.yaxis.set_major_locator(few_ticks(ticks))


def few_ticks(number: int = TICKS) -> Any:
    """A locator of at most `number` ticks."""
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(number)


def line_style(number: int) -> dict[str, Any]:
    """Colour and dashes of the `number`-th of several lines."""
    style = STYLES[number // len(COLOURS) % len(STYLES)]
    return {"color": COLOURS[number % len(COLOURS)], "linestyle": style}


def limits_of(values: np.ndarray) -> Limits | None:
    """The smallest and the largest finite value; None: there is none."""
    finite = values[np.isfinite(values)]
    return (float(finite.min()), float(finite.max())) if finite.size else None


def set_limits(axes: Axes, limits: Limits | None) -> None:
    """Makes the y axis span these values, and a margin."""
    if limits is not None and limits[0] < limits[1]:
        margin = 0.05 * (limits[1] - limits[0])
        axes.set_ylim(limits[0] - margin, limits[1] + margin)


def add_colour_bar(axes: Axes, image: Any, label: str) -> None:
    """A bar as high as the axes, with arrows where values lie outside of it."""
    low, high = image.get_clim()
    lowest, highest = limits_of(np.ma.filled(image.get_array(), np.nan)) or (low, high)
    extend = (("neither", "max"), ("min", "both"))[lowest < low][highest > high]
    bar = axes.inset_axes((1.04, 0.0, 0.05, 1.0))
    axes.figure.colorbar(image, cax=bar, label=label, extend=extend, ticks=few_ticks())
