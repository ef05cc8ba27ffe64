"""Which network a file's arrays are of: their layout, sizes that shapes decide, and what does not fit."""

import logging
import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from evolq_jax.errors import UserError
from evolq_jax.models.convert import Found, Mismatch, Shapes, Weights, compare, detect, num_classes
from evolq_jax.models.registry import REGISTRY, Entry, param_shapes

POSITIONS = "pos_embed"  # the leaf whose length follows from the image size

_log = logging.getLogger(__name__)


class Match(NamedTuple):
    """A network that a file's arrays fit.

    Attributes:
      found: the file's layout, and its arrays under that layout's keys.
      config: of the network: the number of classes is the file's, the image size one that fits.
      shapes: of its parameters.
    """

    found: Found
    config: Any
    shapes: Shapes


def match(entry: Entry, config: Any, arrays: Weights, sizes: Sequence[int]) -> Match:
    """The network of this kind that the arrays fit.

    Args:
        entry: of the registry.
        config: of the network, whose image size and number of classes may be others.
        arrays: of the file.
        sizes: image sizes to try, in order. Where position embeddings are of another, that is tried last.

    Raises:
        UserError: the arrays have no layout of the family, or do not fit at any size.
    """
    found = detect(entry.family.layouts, config, arrays)
    if found is None:
        raise UserError(_unknown_layout(entry, arrays))
    tried: list[Mismatch] = []
    for size in _candidates(entry, found, config, sizes):
        one, mismatch = _at_size(entry, found, config, size)
        if not any(mismatch):
            return one
        tried.append(mismatch)
    raise UserError(_explain(entry, tried[0], arrays))


def _candidates(entry: Entry, found: Found, config: Any, sizes: Iterable[int]) -> list[int]:
    at_positions = position_size(entry, found, config)
    return list(dict.fromkeys([*sizes, *([at_positions] if at_positions else [])]))


def _at_size(entry: Entry, found: Found, config: Any, size: int) -> tuple[Match, Mismatch]:
    """The network with an image size, and what of the file does not fit it."""
    config = found.layout.adapt(config, found.weights)
    classes = num_classes(found.layout, config, found.weights) or config.num_classes
    config = replace(config, image_size=size, num_classes=classes)
    shapes = param_shapes(entry.family, config)
    return Match(found, config, shapes), compare(found.layout, config, shapes, found.weights)


def position_size(entry: Entry, found: Found, config: Any) -> int | None:
    """The image size that the file's position embeddings are for. None: it has none, or not of a square."""
    config = found.layout.adapt(config, found.weights)
    rule = found.layout.rules(config).get(POSITIONS)
    held = None if rule is None else found.weights.get(rule.keys[0])
    shape = param_shapes(entry.family, config).get(POSITIONS)
    if held is None or shape is None or held.ndim != len(shape):
        return None
    patches = held.shape[1] - shape[1] + (config.image_size // config.patch_size) ** 2
    side = math.isqrt(max(patches, 0))
    return side * config.patch_size if side and side**2 == patches else None


def _fitting(arrays: Weights) -> list[str]:
    """The models with the keys and shapes of the file, whatever their number of classes.

    If none has its image size, those that would take it on.
    """
    entries = list(REGISTRY.values())
    for own_size in (True, False):
        names = [entry.name for entry in entries if _fits(entry, arrays, own_size=own_size)]
        if names:
            return names
    return []


def _fits(entry: Entry, arrays: Weights, *, own_size: bool) -> bool:
    found = detect(entry.family.layouts, entry.config, arrays)
    if found is None:
        return False
    size = entry.config.image_size if own_size else position_size(entry, found, entry.config)
    return size is not None and not any(_at_size(entry, found, entry.config, size)[1])


def _unknown_layout(entry: Entry, arrays: Weights) -> str:
    names = _fitting(arrays)
    if names:
        return f"not weights of {entry.name}; they fit {some(names)}: give that name"
    known = ", ".join(layout.name for layout in entry.family.layouts)
    held = f"{len(arrays)} arrays ({some(sorted(arrays))})" if arrays else "no arrays"
    return f"no layout that {entry.name} is read from ({known}): it holds {held}"


def _explain(entry: Entry, mismatch: Mismatch, arrays: Weights) -> str:
    """Says what does not fit, and which other model of the registry would fit."""
    parts = [some(mismatch.shapes, 1)] if mismatch.shapes else []
    if mismatch.missing:
        parts.append(f"lacks {len(mismatch.missing)} keys: {some(mismatch.missing)}")
    if mismatch.extra:
        parts.append(f"has {len(mismatch.extra)} keys beside: {some(mismatch.extra)}")
    names = [name for name in _fitting(arrays) if name != entry.name]
    remedy = f"it fits {some(names)}: give that name" if names else "no model of the registry fits it"
    return f"not weights of {entry.name}: {'; '.join(parts)}; {remedy}"


def some(items: Sequence[str], at_most: int = 3) -> str:
    """The first items in a row, and how many more there are."""
    rest = len(items) - at_most
    return ", ".join(items[:at_most]) + (f" and {rest} more" if rest > 0 else "")
