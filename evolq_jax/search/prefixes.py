"""What the searched blocks receive: the outputs of the blocks before them, which a visit does not change.

All blocks' inputs of a pass can be held, in float32 or in half the memory, or each computed at its visit.
"""

from typing import Any

import jax.numpy as jnp

from evolq_jax.network.parts import blocks_before, num_blocks
from evolq_jax.network.point import Quantized
from evolq_jax.search import programs
from evolq_jax.search.problem import Place, Problem
from evolq_jax.typing import Array

# By segment, the inputs of its blocks [L, B, ...]: of the images searched on, and of those held out.
Inputs = dict[str, list[Array]]


def cache(problem: Problem, network: Quantized, tokens: Array) -> Inputs:
    """The inputs that are held for a pass; none where each is computed at its visit.

    Inputs of blocks that a pass has yet to visit depend on none that it has visited, so a pass that is
    continued gets the same.
    """
    if problem.config.prefixes == "recompute":
        return {}
    dtype: Any = jnp.dtype(problem.config.prefixes)
    cached = programs.cache_inputs(problem.runner, network, tokens, dtype=dtype)
    return {name: _split(problem, cached.pop(name)) for name in list(cached)}


def inputs_at(
    problem: Problem, network: Quantized, tokens: Array, *, place: Place, cached: Inputs
) -> list[Array]:
    """The inputs [L, B, ...] of a place's segment, by part of the images.

    Where they are not cached they are of the place's first block alone: [1, B, ...].
    """
    segment = problem.runner.parts.segments[place.segment]
    if segment.name in cached:
        return cached[segment.name]
    block = jnp.asarray(place.block, jnp.int32)
    x = programs.block_input(problem.runner, network, tokens, block, number=place.segment)
    return _split(problem, x)


def blocks_to_cache(problem: Problem) -> int:
    """Blocks that each image runs for `cache`."""
    return 0 if problem.config.prefixes == "recompute" else num_blocks(problem.runner.parts)


def blocks_to_recompute(problem: Problem, place: Place) -> int:
    """Blocks that each image runs at a visit, before the searched ones."""
    is_cached = problem.config.prefixes != "recompute"
    return 0 if is_cached else blocks_before(problem.runner.parts, place.segment, place.block)


def _split(problem: Problem, inputs: Array) -> list[Array]:
    return programs.split(problem.runner, inputs, num_searched=problem.searched.num_images)
