"""A listed but not yet decoded set of images: what folders and arrays have in common."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


class Unreadable(Exception):
    """One image that cannot be decoded; the message names the file and the reason."""


@dataclass(frozen=True)
class Source:
    """A set of B images that knows its names and labels and can decode any one of them.

    `decode(i)` returns uint8 of shape `shape` and raises `Unreadable`; it is called from several threads.
    `stamp(i)` is a JSON-able value that changes whenever image i's bytes are replaced (cache key).
    `pixels`, uint8 [B, *shape], is set where the images lie in memory at the right size already; nothing is
    then decoded or cached.
    """

    where: str
    names: tuple[str, ...]
    labels: np.ndarray | None
    shape: tuple[int, int, int]
    decode: Callable[[int], np.ndarray]
    stamp: Callable[[int], list[str | int]]
    pixels: np.ndarray | None = None
