"""Which images of a set are used: all, or a subset by a seed, at random or balanced over the classes."""

from bisect import bisect_right
from pathlib import Path
from typing import Literal

import numpy as np

from evolq_jax.data.labels import read_labels
from evolq_jax.data.source import Source
from evolq_jax.errors import UserError

Draw = Literal["random", "balanced"]


def draw_rows(
    source: Source, num: int | None, seed: int | None, draw: Draw, cache_dir: Path | None
) -> np.ndarray:
    """The rows of a source that are used, int64 [num], ascending.

    Args:
        source: the set.
        num: how many; None: all of them.
        seed: of the draw; None: the first ones (of each class).
        draw: `random` as `draw_indices`, `balanced` as `draw_balanced`, by class folder or, where there are
            none, by label.
        cache_dir: where labels are kept that take long to read.

    Raises:
        UserError: as `draw_indices`, or the images have no classes to balance.
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
    """Checks that a draw is known and that the set has what it needs, without reading labels.

    Raises:
        UserError: it is unknown, or balanced over images without classes.
    """
    if draw not in ("random", "balanced"):
        raise UserError(f"draw must be 'random' or 'balanced', got {draw!r}")
    if draw == "balanced" and source.class_folders is None and source.labels is None:
        raise UserError(
            f"a balanced draw needs classes, but {source.where} has neither class folders nor labels: "
            "set data.draw to random"
        )


def draw_indices(total: int, num: int | None, seed: int | None, where: str = "the image set") -> np.ndarray:
    """Which `num` of `total` images to use: `Generator(PCG64(seed)).choice` without replacement, sorted.

    Args:
        total: size of the set.
        num: how many; None: all of them.
        seed: None takes the first `num`.
        where: the set's name in messages.

    Returns:
        int64 [num], ascending.

    Raises:
        UserError: if `num` is not in 1..total or the seed is negative.
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
    """Which `num` of B images to use so that classes have equal shares, as far as they have images.

    A class has all its images drawn, or as many as the level that the others share. What does not divide
    goes to classes by lot, one image each. Both lots are of one `Generator(PCG64(seed))`: a permutation of
    the images, of which each class gives its first, then one of the classes.

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
