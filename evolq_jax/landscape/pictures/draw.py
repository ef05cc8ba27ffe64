"""Which pictures a scan has, and on what scales."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from evolq_jax.figures.picture import Picture
from evolq_jax.figures.style import Limits, limits_of
from evolq_jax.landscape.config import Kind
from evolq_jax.landscape.pictures.layers import layer_figure
from evolq_jax.landscape.pictures.lines import lines_figure, losses_figure
from evolq_jax.landscape.pictures.plane import contour_figure, minimum_of, surface_figure
from evolq_jax.landscape.pictures.words import loss_label, loss_title

ROUGHNESS = "roughness of "  # before a loss's name: that scale of its layers


class Labels(NamedTuple):
    """What the pictures of a scan say."""

    kind: Kind
    axis_labels: Sequence[str]
    columns: Sequence[str]  # the losses, in the order of the arrays
    units: Sequence[str]  # of the columns


def scales(arrays: Mapping[str, np.ndarray], labels: Labels) -> dict[str, Limits]:
    """The limits of each loss in these arrays, by its name; for layers of its range and its roughness."""
    found: dict[str, Limits | None] = {}
    for number, column in enumerate(labels.columns):
        if labels.kind == "layers":
            numbers = _layers(arrays, number)
            found[column], found[ROUGHNESS + column] = limits_of(numbers[0]), limits_of(numbers[1])
        else:
            found[column] = limits_of(arrays["losses"][number])
    return {name: limits for name, limits in found.items() if limits is not None}


def draw(
    arrays: Mapping[str, np.ndarray], labels: Labels, limits: Mapping[str, Limits] | None = None
) -> Iterator[Picture]:
    """The pictures of a scan.

    Args:
      arrays: as in `landscape.npz`.
      labels: what they mean.
      limits: of colours and axes by loss, as `scales` gives them; what is not named has those of the arrays.
    """
    given = limits or {}
    kinds = {"line": _lines, "plane": _plane, "layers": _of_layers}
    yield from kinds[labels.kind](arrays, labels, given)


def _lines(arrays: Mapping[str, np.ndarray], says: Labels, limits: Mapping[str, Limits]) -> Iterator[Picture]:
    x, losses, label = arrays["x"], arrays["losses"], says.axis_labels[0]
    number, points = losses.shape[1:]
    along = "the first direction" if number > 1 else "the line"
    yield Picture(
        "losses",
        f"All losses along {along}, {points} points. The dashed lines mark the origin.",
        partial(losses_figure, x, losses[:, 0], says.columns, units=says.units, label=label),
    )
    along = f"{number} directions" if number > 1 else "the line"
    for column, unit, values in zip(says.columns, says.units, losses, strict=True):
        yield Picture(
            f"lines_{column}",
            f"{_title(column)} along {along}, {points} points. The dashed line marks the origin.",
            partial(
                lines_figure, x, values, label=label, name=loss_label(column, unit), limits=limits.get(column)
            ),
        )


def _plane(arrays: Mapping[str, np.ndarray], says: Labels, limits: Mapping[str, Limits]) -> Iterator[Picture]:
    x, y = arrays["x"], arrays["y"]
    for column, unit, values in zip(says.columns, says.units, arrays["losses"], strict=True):
        options = {
            "labels": says.axis_labels,
            "name": loss_label(column, unit),
            "limits": limits.get(column),
        }
        title, (row, place) = _title(column), minimum_of(values)
        value = values[row, place]
        lowest = (
            f" The lowest is {value:.4g} at ({x[place]:.2g}, {y[row]:.2g})." if np.isfinite(value) else ""
        )
        yield Picture(
            f"contour_{column}",
            f"{title} on the plane, {len(x)} × {len(y)} points.{lowest}",
            partial(contour_figure, x, y, values, **options),
        )
        make = partial(surface_figure, x, y, values, **options)
        yield Picture(f"surface_{column}", f"{title} as a surface.", make)


def _of_layers(
    arrays: Mapping[str, np.ndarray], says: Labels, limits: Mapping[str, Limits]
) -> Iterator[Picture]:
    for number, loss in enumerate(zip(says.columns, says.units, strict=True)):
        yield Picture(
            f"layers_{loss[0]}",
            f"{_title(loss[0])} where one site of one block moves: its range, and its roughness as a share "
            "of that range. Where the range is small, roughness is noise.",
            partial(
                layer_figure,
                arrays["sites"],
                arrays["blocks"],
                _layers(arrays, number),
                loss=loss,
                limits=(limits.get(loss[0]), limits.get(ROUGHNESS + loss[0])),
            ),
        )


def _layers(arrays: Mapping[str, np.ndarray], number: int) -> np.ndarray:
    """Range and roughness of a loss, means over directions: [2, lines]."""
    both = np.stack([arrays[f"{name}_stride1"][number] for name in ("range", "roughness")])
    finite = np.isfinite(both)
    counts = np.maximum(finite.sum(-1), 1)
    return np.where(finite.any(-1), np.where(finite, both, 0.0).sum(-1) / counts, np.nan)


def _title(column: str) -> str:
    """The loss at the beginning of a sentence: its first letter is large, except in infoNCE."""
    title = loss_title(column)
    return title if title.startswith("infoNCE") else title[:1].upper() + title[1:]
