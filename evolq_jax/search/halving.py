"""Successive halving of a population over a growing share of the images (Jamieson and Talwalkar 2016)."""

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from evolq_jax.errors import UserError
from evolq_jax.quant.qparams import QParams
from evolq_jax.typing import Array


def image_counts(num_stages: int, num_images: int, batch_size: int) -> tuple[int, ...]:
    """The images of each stage, in whole contrastive batches: about twice as many each time, at last all.

    Raises:
      UserError: there are fewer batches than the stages need.
    """
    batches = num_images // batch_size
    if batches < 2 ** (num_stages - 1):
        raise UserError(
            f"search.halving {num_stages} needs {2 ** (num_stages - 1)} batches, and "
            f"{num_images} images searched on are {batches} of {batch_size}: lower search.halving or "
            "search.batch_size"
        )
    return tuple(math.ceil(batches / 2**left) * batch_size for left in reversed(range(num_stages)))


def stages(population_size: int, counts: Sequence[int]) -> list[tuple[int, int]]:
    """Candidates and images of each stage of one generation. A single candidate goes on to all images."""
    if population_size == 1 or len(counts) == 1:
        return [(population_size, counts[-1])]
    return [(population_size, counts[0]), *stages((population_size + 1) // 2, counts[1:])]


def num_scored(num_stages: int, population_size: int) -> int:
    """The number of scores in one generation. A candidate counts once in each stage that it reaches."""
    return sum(size for size, _ in stages(population_size, range(num_stages)))


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
    better = halve(score, _better_half(candidates, fitness), counts[1:])
    return _joined(fitness, better)


@jax.jit
def _better_half(candidates: QParams, fitness: Array) -> QParams:
    """The candidates that go on, the best first."""
    kept = jnp.argsort(fitness)[: (len(fitness) + 1) // 2]  # not a number comes last
    return jax.tree.map(lambda leaf: leaf[kept], candidates)


@jax.jit
def _joined(fitness: Array, better: Array) -> Array:
    """Fitness [P] of all, with that of the better half [(P + 1) // 2] put in, and the others behind it."""
    order = jnp.argsort(fitness)
    kept, lost = order[: len(better)], order[len(better) :]
    behind = jnp.nanmax(better) + (fitness[lost] - fitness[lost[0]])
    return fitness.at[kept].set(better).at[lost].set(behind)
