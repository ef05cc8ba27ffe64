"""The style of all pictures: as wide as one column of a paper, in colours that everybody can tell apart.

Needs matplotlib, which is an extra: `pip install 'evolq_jax[plot]'`.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMN_WIDTH = 3.3  # inches
DPI = 300
TICKS = 5  # at most, on an axis
# Okabe and Ito (2008).
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
STYLES = ("-", "--", "-.", ":")
COLOUR_MAP = "cividis"  # Nuñez, Anderton and Renslow (2018)
RC: dict[Any, Any] = {
    "font.size": 7,
    "axes.labelsize": 7,
    "axes.titlesize": 7,
    "xtick.labelsize": 6,
    "ytick.labelsize": 6,
    "legend.fontsize": 6,
    "lines.linewidth": 1.0,
    "axes.linewidth": 0.5,
    "grid.linewidth": 0.3,
    "svg.hashsalt": "evolq_jax",  # equal pictures are equal files
}


def render(figures: Iterable[tuple[str, Figure]]) -> Iterator[tuple[str, bytes]]:
    """PNG and SVG files (name, content) of named figures, which may be made on the way."""
    import matplotlib as mpl

    with mpl.rc_context(RC):
        for name, figure in figures:
            for kind in ("png", "svg"):
                buffer = io.BytesIO()
                date = {"Date": None} if kind == "svg" else {}
                figure.savefig(buffer, format=kind, dpi=DPI, bbox_inches="tight", metadata=date)
                yield f"{name}.{kind}", buffer.getvalue()


def one_column(height: float) -> tuple[Figure, Axes]:
    """A figure of one column's width and `height` inches, with one pair of axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(COLUMN_WIDTH, height))
    return figure, figure.add_subplot()


def name_axes(axes: Axes, x: str, y: str) -> None:
    """Names both axes and keeps their ticks few."""
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.margins(x=0)
    axes.xaxis.set_major_locator(few_ticks())
    axes.yaxis.set_major_locator(few_ticks())


def few_ticks() -> Any:
    """A locator of at most `TICKS` ticks."""
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(TICKS)
