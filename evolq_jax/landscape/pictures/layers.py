"""The picture of a scan layer by layer: how far a loss moves in each layer, and how rough it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from evolq_jax.figures.style import COLOUR_MAP, Limits, add_colour_bar, limits_of, one_column
from evolq_jax.landscape.pictures.words import loss_label, loss_title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def layer_figure(
    sites: np.ndarray,
    blocks: np.ndarray,
    numbers: np.ndarray,
    *,
    loss: tuple[str, str],
    limits: tuple[Limits | None, Limits | None] = (None, None),
) -> Figure:
    """Range and roughness [2, lines] of a loss by kind of site and by block. The caller averages directions.

    Roughness is a share of the range. Both are shown: where the loss hardly moves, a rough line is noise.
    Colours begin at 0, so that small differences look small.

    Args:
      sites: of the lines.
      blocks: of the lines.
      numbers: range, then roughness, of the lines.
      loss: its name and its unit.
      limits: of the colours of both panels; None: 0 and the largest value.
    """
    tables = [layer_table(sites, blocks, values) for values in numbers]
    kinds, places, _ = tables[0]
    figure = one_column(0.75 + 2 * (0.3 + 0.15 * len(kinds)))
    panels = figure.subplots(2, 1, sharex=True)
    titles = f"range of {loss_title(loss[0])}", "roughness, as a share of the range"
    units = loss_label("", loss[1]).strip(" ()"), ""
    for number, axes in enumerate(panels):
        _, _, table = tables[number]
        _, top = limits[number] or limits_of(table) or (0.0, 1.0)
        image = axes.imshow(table, cmap=COLOUR_MAP, aspect="auto", vmin=0.0, vmax=top or 1.0)
        axes.set_facecolor("0.8")
        axes.set_yticks(range(len(kinds)), kinds)
        axes.set_title(titles[number], loc="left", pad=3)
        add_colour_bar(axes, image, units[number])
    _name_blocks(panels[-1], places)
    return figure


def _name_blocks(axes: Axes, places: list[str]) -> None:
    """Numbers under the cells; names of segments, which are longer, upright."""
    upright = any(not place.isdigit() for place in places)
    axes.set_xticks(range(len(places)), places, rotation=90 if upright else 0)
    axes.set_xlabel("block")


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
