"""Draws the pictures of a scan from its arrays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from evolq_jax.figures import (
    COLOUR_MAP,
    COLOURS,
    COLUMN_WIDTH,
    STYLES,
    few_ticks,
    name_axes,
    one_column,
    render,
)
from evolq_jax.landscape.config import Kind

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Labels(NamedTuple):
    """What the pictures of a scan say."""

    kind: Kind
    axis_labels: Sequence[str]
    columns: Sequence[str]  # the losses, in the order of the arrays
    units: Sequence[str]  # of the columns


def draw(arrays: Mapping[str, np.ndarray], labels: Labels) -> Iterator[tuple[str, bytes]]:
    """The PNG and SVG files of a scan: (name, content).

    Args:
      arrays: as in `landscape.npz`.
      labels: what they mean.
    """
    return render(_figures(arrays, labels))


def _figures(arrays: Mapping[str, np.ndarray], says: Labels) -> Iterator[tuple[str, Figure]]:
    x, losses, labels = arrays["x"], arrays["losses"], says.axis_labels
    if says.kind == "line":
        yield "losses", losses_figure(x, losses[:, 0], says.columns, labels[0])
    for number, (column, unit, values) in enumerate(zip(says.columns, says.units, losses, strict=True)):
        name = f"{column} ({unit})"
        if says.kind == "line":
            yield f"lines_{column}", lines_figure(x, values, labels[0], name)
        elif says.kind == "plane":
            yield f"contour_{column}", contour_figure(x, arrays["y"], values, labels=labels, name=name)
            yield f"surface_{column}", surface_figure(x, arrays["y"], values, labels=labels, name=name)
        else:
            roughness = arrays["roughness_stride1"][number].mean(-1)
            yield f"roughness_{column}", layer_figure(arrays["sites"], arrays["blocks"], roughness, column)


def losses_figure(x: np.ndarray, lines: np.ndarray, columns: Sequence[str], label: str) -> Figure:
    """Several losses [columns, T] along one line, each scaled to [0, 1]."""
    figure, axes = one_column(2.4)
    for number, (column, line) in enumerate(zip(columns, lines, strict=True)):
        colour, style = COLOURS[number % len(COLOURS)], STYLES[number // 2 % len(STYLES)]
        low, high = np.nanmin(line), np.nanmax(line)
        scaled = (line - low) / (high - low if high > low else 1.0)
        axes.plot(x, scaled, color=colour, linestyle=style, label=column)
    name_axes(axes, label, "loss, scaled to its range")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.22), ncol=3, frameon=False)
    return figure


def lines_figure(x: np.ndarray, lines: np.ndarray, label: str, name: str) -> Figure:
    """One loss along several directions [directions, T], in its unit."""
    figure, axes = one_column(2.0)
    for number, line in enumerate(lines):
        axes.plot(x, line, color=COLOURS[number % len(COLOURS)], linewidth=0.7)
    name_axes(axes, label, name)
    return figure


def contour_figure(
    x: np.ndarray, y: np.ndarray, losses: np.ndarray, *, labels: Sequence[str], name: str
) -> Figure:
    """Filled contours of losses [y, x]; a cross marks the origin."""
    figure, axes = one_column(2.7)
    filled = axes.contourf(x, y, np.ma.masked_invalid(losses), levels=20, cmap=COLOUR_MAP)
    axes.plot(0.0, 0.0, marker="+", color="white", markersize=6, markeredgewidth=1.2)
    name_axes(axes, labels[0], labels[1])
    figure.colorbar(filled, ax=axes, label=name)
    return figure


def surface_figure(
    x: np.ndarray, y: np.ndarray, losses: np.ndarray, *, labels: Sequence[str], name: str
) -> Figure:
    """Losses [y, x] as a surface in three dimensions."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(COLUMN_WIDTH, 3.0))
    axes: Any = figure.add_subplot(projection="3d")
    grid_x, grid_y = np.meshgrid(x, y)
    options = {"rcount": len(y), "ccount": len(x), "linewidth": 0, "rasterized": True}
    axes.plot_surface(grid_x, grid_y, losses, cmap=COLOUR_MAP, **options)
    axes.set_xlabel(labels[0], labelpad=-4, fontsize=5)
    axes.set_ylabel(labels[1], labelpad=-4, fontsize=5)
    axes.set_zlabel(name, labelpad=-4)
    axes.tick_params(pad=-3, labelsize=5)
    for axis in (axes.xaxis, axes.yaxis, axes.zaxis):
        axis.set_major_locator(few_ticks())
    return figure


def layer_figure(sites: np.ndarray, blocks: np.ndarray, roughness: np.ndarray, name: str) -> Figure:
    """Roughness [lines] by kind of site and by block. The caller averages over directions."""
    kinds, places, table = layer_table(sites, blocks, roughness)
    figure, axes = one_column(0.5 + 0.22 * len(kinds) + 0.5)
    image = axes.imshow(table, cmap=COLOUR_MAP, aspect="auto")
    axes.set_yticks(range(len(kinds)), kinds)
    axes.set_xticks(range(len(places)), places)
    axes.set_xlabel("block")
    axes.set_title(f"roughness of {name}, share of its range")
    figure.colorbar(image, ax=axes)
    return figure


def layer_table(
    sites: np.ndarray, blocks: np.ndarray, values: np.ndarray
) -> tuple[list[str], list[str], np.ndarray]:
    """The names of kinds and blocks, and values of lines as [kinds, blocks]. NaN: the block has no such site.

    A kind is a site's name without its segment and without `weight`.
    """
    split = [site.split("/", 1) for site in sites]
    kinds = list(dict.fromkeys(local.removesuffix("/weight") for _, local in split))
    places = list(dict.fromkeys((segment, int(b)) for (segment, _), b in zip(split, blocks, strict=True)))
    table = np.full((len(kinds), len(places)), np.nan)
    for (segment, local), block, value in zip(split, blocks, values, strict=True):
        table[kinds.index(local.removesuffix("/weight")), places.index((segment, int(block)))] = value
    several = len({segment for segment, _ in places}) > 1
    names = [f"{segment} {block}" if several else str(block) for segment, block in places]
    return kinds, names, table
