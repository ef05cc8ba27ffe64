"""Successive halving of a population over a growing share of the images (Jamieson and Talwalkar 2016)."""

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from evolq_jax.errors import UserError
from evolq_jax.quant.qparams import QParams
from evolq_jax.typing import Array


def image_counts(stages: int, num_images: int, batch_size: int) -> tuple[int, ...]:
    """The images of each stage, in whole contrastive batches: about twice as many each time, at last all.

    Raises:
      UserError: there are fewer batches than the stages need.
    """
    batches = num_images // batch_size
    if batches < 2 ** (stages - 1):
        raise UserError(
            f"search.halving {stages} needs {2 ** (stages - 1)} contrastive batches, and {num_images} images "
            f"searched on are {batches} of {batch_size}: lower search.halving or search.batch_size"
        )
    return tuple(math.ceil(batches / 2**left) * batch_size for left in reversed(range(stages)))


def num_scored(stages: int, population_size: int) -> int:
    """The number of scores in one generation. A candidate counts once in each stage that it reaches."""
    sizes = [population_size]
    while len(sizes) < stages and sizes[-1] > 1:
        sizes.append((sizes[-1] + 1) // 2)
    return sum(sizes)


def halve(score: Callable[[QParams, int], Array], candidates: QParams, counts: Sequence[int]) -> Array:
    """Fitness [P] of candidates: exact for the last survivors, which are the best; estimated for the others.

    The better half of a stage goes on to the next stage. A single survivor goes on to all images. Candidates
    that drop out get a fitness behind those that go on, with the differences that they had when scored.

    Args:
      score: gives the fitness of candidates [P] on the first so many images.
      candidates: scales with a leading P axis.
      counts: the images of each stage; the last stage has all.
    """
    size = jax.tree.leaves(candidates)[0].shape[0]
    if size == 1 or len(counts) == 1:
        return score(candidates, counts[-1])
    fitness = score(candidates, counts[0])
    order = jnp.argsort(fitness)  # not a number comes last
    kept, lost = order[: (size + 1) // 2], order[(size + 1) // 2 :]
    better = halve(score, jax.tree.map(lambda leaf: leaf[kept], candidates), counts[1:])
    behind = jnp.nanmax(better) + (fitness[lost] - fitness[lost[0]])
    return fitness.at[kept].set(better).at[lost].set(behind)
