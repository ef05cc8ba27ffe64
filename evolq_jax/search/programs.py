"""The compiled programs of the block-wise search: one of each kind per segment, whatever its depth."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from evolq_jax.network import at, window
from evolq_jax.quant.sites import quant_sites
from evolq_jax.quant.spec import Specs
from evolq_jax.search.evaluate import (
    Quantized,
    Scoring,
    at_scales,
    block_inputs,
    float_outputs,
    population_fitness,
)
from evolq_jax.search.space import SearchSpace
from evolq_jax.typing import Array, ModelParts, Params, QParams, Scales

JITTER = 1e-6  # relative; float32 resolves 1.2e-7


@partial(jax.jit, static_argnames=("parts", "specs", "chunk"))
def cache_inputs(
    parts: ModelParts, specs: Specs, chunk: int, network: Quantized, tokens: Array
) -> dict[str, Array]:
    """Every block's input, by segment: [L, B, ...]."""
    return block_inputs(parts, quant_sites(specs), chunk, network.quantized, network.scales, tokens)


@partial(jax.jit, static_argnames=("parts", "chunk", "number", "size"))
def float_blocks(
    parts: ModelParts, chunk: int, number: int, size: int, params: Params, index: Array, inputs: Array
) -> Array:
    """What `size` float blocks from `index` on make of their input in the quantized network: [B, ...]."""
    x = jax.lax.dynamic_index_in_dim(inputs, index, keepdims=False)
    segment = parts.segments[number]
    return float_outputs(segment, chunk, window(params[segment.name], index, size), x)


@partial(jax.jit, static_argnames=("parts", "specs", "scoring", "number", "num_images"))
def score(
    parts: ModelParts,
    specs: Specs,
    scoring: Scoring,
    number: int,
    network: Quantized,
    candidates: Scales,
    index: Array,
    inputs: Array,
    teacher: Array,
    temperature: Array,
    target: Array | None,
    features: Array | None,
    num_images: int,
) -> Array:
    """Fitness [P] of candidates for the scales of blocks from `index` on, on the first images.

    `inputs` [L, B, ...] are all blocks'; `target` [B, ...] is what `float_blocks` gives; `features`
    [B, ...] are the teacher's.
    """
    x = jax.lax.dynamic_index_in_dim(inputs, index, keepdims=False)
    on_images = x, teacher, target, features
    x, teacher, target, features = jax.tree.map(lambda leaf: leaf[:num_images], on_images)
    at_block = candidates, index, x, teacher, temperature, target, features
    return population_fitness(parts, specs, scoring, number, network, *at_block)


@partial(jax.jit, static_argnames=("size",))
def jitter(block_scales: Scales, key: Array, size: int) -> Scales:
    """Copies of a block's scales, each off by some millionths: [size] on every leaf.

    Nobody could tell them apart but by the values that lie next to a rounding edge.
    """
    names = sorted(block_scales)
    keys = dict(zip(names, jax.random.split(key, len(names)), strict=True))

    def copies(name: str) -> QParams:
        scale, zero_point = block_scales[name]
        noise = jax.random.uniform(keys[name], (size, *scale.shape), minval=-1.0, maxval=1.0)
        return QParams(scale * (1 + JITTER * noise), jnp.broadcast_to(zero_point, (size, *zero_point.shape)))

    return {name: copies(name) for name in names}


@jax.jit
def slice_block(stacked: Any, index: Array | int) -> Any:
    """`at`, compiled once for all leaves instead of once for each shape."""
    return at(stacked, index)


@partial(jax.jit, static_argnames=("size",))
def slice_blocks(stacked: Any, index: Array, size: int) -> Any:
    """`window`, compiled once for all leaves."""
    return window(stacked, index, size)


@partial(jax.jit, static_argnames=("specs",))
def quantize(specs: Specs, params: Params, scales: Scales) -> Quantized:
    """The network at `scales`."""
    return at_scales(specs, params, scales)


@partial(jax.jit, static_argnames=("segment",))
def write_back(segment: str, scales: Scales, block_scales: Scales, index: Array) -> Scales:
    """The scales with those of blocks from `index` on put in."""
    scales = dict(scales)
    for name, qparams in block_scales.items():
        site = f"{segment}/{name}"
        put = partial(jax.lax.dynamic_update_slice_in_dim, start_index=index, axis=0)
        scales[site] = jax.tree.map(put, scales[site], qparams)
    return scales


@partial(jax.jit, static_argnames=("space",))
def decode(space: SearchSpace, population: dict[str, Array], start_scales: Scales, step: Array) -> Scales:
    """The blocks' scales for a population of solutions: leading axes [P, blocks] on every leaf."""
    by_block = jax.vmap(lambda solution, start: space.decode(solution, start, step))
    return jax.vmap(by_block, in_axes=(0, None))(population, start_scales)
