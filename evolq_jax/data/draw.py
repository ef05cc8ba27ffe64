"""Draws the images of a set that are used: all, or a subset by a seed, random or balanced over classes."""

from bisect import bisect_right
from pathlib import Path
from typing import Literal

import numpy as np

from evolq_jax.data.labels import read_labels
from evolq_jax.data.source import Source
from evolq_jax.errors import UserError

Draw = Literal["random", "balanced"]


def draw_rows(
    source: Source, num: int | None, *, seed: int | None, draw: Draw, cache_dir: Path | None
) -> np.ndarray:
    """The rows of a source that are used, int64 [num], ascending.

    Args:
        source: the set.
        num: the number of rows; None: all of them.
        seed: of the draw; None: the first ones (of each class).
        draw: `random` (`draw_indices`) or `balanced` (`draw_balanced`). Classes are class folders or, without
            them, labels.
        cache_dir: where labels are kept if they take long to read.

    Raises:
        UserError: as `draw_indices`, or the images have no classes.
    """
    check_draw(source, draw)
    indices = draw_indices(len(source.names), num, seed, source.where)  # checks its arguments too
    if draw == "random" or num is None:
        return indices
    classes = source.class_folders
    if classes is None:
        classes = read_labels(source, np.arange(len(source.names)), cache_dir)
    assert classes is not None  # by check_draw
    return draw_balanced(classes, num, seed)


def check_draw(source: Source, draw: Draw) -> None:
    """Checks a draw without reading labels.

    Raises:
        UserError: the draw is unknown, or it is balanced and the images have no classes.
    """
    if draw not in ("random", "balanced"):
        raise UserError(f"draw must be 'random' or 'balanced', got {draw!r}")
    if draw == "balanced" and source.class_folders is None and source.labels is None:
        raise UserError(
            f"a balanced draw needs classes, but {source.where} has neither class folders nor labels: "
            "set data.draw to random"
        )


def draw_indices(total: int, num: int | None, seed: int | None, where: str = "the image set") -> np.ndarray:
    """Draws `num` of `total` images: `Generator(PCG64(seed)).choice` without replacement, sorted.

    Args:
        total: size of the set.
        num: the number of images; None: all of them.
        seed: None takes the first `num`.
        where: the set's name in messages.

    Returns:
        int64 [num], ascending.

    Raises:
        UserError: `num` is not in 1..total, or the seed is negative.
    """
    if num is None:
        return np.arange(total)
    if num <= 0:
        raise UserError(f"num must be positive (or None for all images), got {num} for {where}")
    if num > total:
        raise UserError(f"num asks for {num} images, but {where} has only {total}")
    if seed is None:
        return np.arange(num)
    if seed < 0:
        raise UserError(f"the seed that draws images must not be negative, got {seed}")
    return np.sort(np.random.Generator(np.random.PCG64(seed)).choice(total, size=num, replace=False))


def draw_balanced(classes: np.ndarray, num: int, seed: int | None) -> np.ndarray:
    """Draws `num` of B images so that classes have equal shares, as far as they have images.

    Each class gives the same number of images, or all that it has if it has fewer. A remainder goes to
    classes by lot, one image each. One `Generator(PCG64(seed))` draws twice: a permutation of the images, of
    which each class gives the first ones, and then a permutation of the classes.

    Args:
        classes: integers [B].
        num: from 1 to B.
        seed: None takes the first images and classes.

    Returns:
        int64 [num], ascending.
    """
    _, classes, sizes = np.unique(classes, return_inverse=True, return_counts=True)
    if seed is None:
        order, lots = np.arange(len(classes)), np.arange(len(sizes))
    else:
        generator = np.random.Generator(np.random.PCG64(seed))
        order, lots = generator.permutation(len(classes)), generator.permutation(len(sizes))
    level = bisect_right(range(num + 1), num, key=lambda level: int(np.minimum(sizes, level).sum())) - 1
    quotas = np.minimum(sizes, level)
    larger = lots[sizes[lots] > level]
    quotas[larger[: num - quotas.sum()]] += 1
    by_class = order[np.argsort(classes[order], kind="stable")]
    place = np.arange(len(classes)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return np.sort(by_class[place < np.repeat(quotas, sizes)])
