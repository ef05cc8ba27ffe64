"""A listed but not yet decoded set of images: what folders, arrays and prepared data sets have in common."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


class Unreadable(Exception):
    """One image that cannot be decoded; the message names the file and the reason."""


@dataclass(frozen=True)
class Source:
    """A set of B images that knows their names and can decode any one of them.

    Attributes:
        where: the set's name in messages.
        names: of the images.
        shape: of a decoded image, (size, size, K).
        decode: image i as uint8 of this shape; raises `Unreadable`; called from several threads.
        stamp: a JSON-able value that changes whenever image i's bytes are replaced (cache key).
        labels: int32 [b] of the images at rows [b]; None: the set has no labels.
        max_label: no label is above it; -1 where there are none.
        class_folders: integers [B], which class folder each image lies in; None: there are none.
        slow_labels: reading labels takes reading the images' records, so they are worth keeping on disk.
        pixels: uint8 [B, *shape], set where the images lie in memory at the right size already; nothing
            is then decoded or cached.
    """

    where: str
    names: tuple[str, ...]
    shape: tuple[int, int, int]
    decode: Callable[[int], np.ndarray]
    stamp: Callable[[int], list[str | int]]
    labels: Callable[[np.ndarray], np.ndarray] | None = None
    max_label: int = -1
    class_folders: np.ndarray | None = None
    slow_labels: bool = False
    pixels: np.ndarray | None = None


def listed_labels(labels: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """A source's `labels` where all of them, int32 [B], are known from its listing."""
    return lambda rows: labels[rows]
