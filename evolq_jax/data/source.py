"""A set of images that is listed but not yet decoded: folders, arrays and prepared data sets alike."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


class Unreadable(Exception):
    """An image cannot be decoded. The message names the file and the reason."""


@dataclass(frozen=True)
class Source:
    """A set of B images. It knows their names and can decode each of them.

    Attributes:
        where: the set's name in messages.
        names: the names of the images.
        shape: the shape of a decoded image, (size, size, K).
        decode: gives image i as uint8 of this shape, or raises `Unreadable`. Several threads call it.
        stamp: gives a JSON-able value that changes when image i's bytes are replaced (for the cache key).
        labels: gives the labels int32 [b] of rows [b]; None: the set has no labels.
        max_label: the highest label that is possible; -1 without labels.
        class_names: what the user's list calls the classes, in index order; empty: there is none.
        num_classes: how many classes the set says that it has.
        class_folders: the number of each image's class folder, integers [B]; None: there are none.
        slow_labels: reading labels means reading the images' records, so it pays to keep labels on disk.
        pixels: uint8 [B, *shape], if the images are already in memory at the right size. Nothing is then
            decoded or cached.
    """

    where: str
    names: tuple[str, ...]
    shape: tuple[int, int, int]
    decode: Callable[[int], np.ndarray]
    stamp: Callable[[int], list[str | int]]
    labels: Callable[[np.ndarray], np.ndarray] | None = None
    max_label: int = -1
    class_names: tuple[str, ...] = ()
    num_classes: int | None = None
    class_folders: np.ndarray | None = None
    slow_labels: bool = False
    pixels: np.ndarray | None = None


def listed_labels(labels: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """The `labels` of a source whose listing has all labels, int32 [B]."""
    return lambda rows: labels[rows]
