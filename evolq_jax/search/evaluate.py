"""Scoring a population of one block's scales by the whole network's output, from the block's input on.

Blocks before the searched one are not run: their output is cached once per pass. Blocks after it are
the same for all candidates, so candidates and images are one batch there.
"""

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from evolq_jax.fitness import batched, make_fitness
from evolq_jax.network import at, largest_divisor, normalize, run_block, run_blocks, scan_blocks
from evolq_jax.quant.sites import QuantSite, SiteFactory, fake_quant_weights, quant_sites
from evolq_jax.quant.spec import Specs, scope
from evolq_jax.typing import Array, ModelParts, Params, Preprocessing, Scales


@dataclass(frozen=True)
class Scoring:
    """Static settings of an evaluation: what is measured, and how much is held in memory at once.

    `batch_size` is the contrastive batch of the fitness; `image_chunk` times `population_chunk` images
    run at once (neither changes the result but for rounding).
    """

    fitness: str = "info_nce"
    batch_size: int = 100
    image_chunk: int = 10
    population_chunk: int = 1


class Quantized(NamedTuple):
    """A network at one point of scale space; `quantized` are `params` with fake-quantized weights."""

    params: Params
    quantized: Params
    scales: Scales


def at_scales(specs: Specs, params: Params, scales: Scales) -> Quantized:
    """The network at `scales`."""
    return Quantized(params, fake_quant_weights(specs, params, scales), scales)


def block_inputs(
    parts: ModelParts, make_site: SiteFactory, chunk: int, params: Params, scales: Scales, tokens: Array
) -> dict[str, Array]:
    """Every block's input, by segment: [L, B, ...], from the first segment's entry [B, ...]."""

    def one_chunk(x: Array) -> dict[str, Array]:
        inputs = {}
        for number, segment in enumerate(parts.segments):
            x = segment.enter(params, make_site("", scales), x) if number else x
            x, inputs[segment.name] = scan_blocks(segment, make_site, params, scales, x)
        return inputs

    chunks = jax.lax.map(one_chunk, _split(tokens, chunk))
    return {name: _join(jnp.moveaxis(x, 0, 1), axis=1) for name, x in chunks.items()}


def embed(
    parts: ModelParts,
    make_site: SiteFactory,
    chunk: int,
    preprocessing: Preprocessing,
    params: Params,
    scales: Scales,
    pixels: Array,
) -> Array:
    """uint8 images [B, height, width, channels] -> the first segment's entry [B, ...]."""

    def one_chunk(x: Array) -> Array:
        return parts.segments[0].enter(params, make_site("", scales), normalize(preprocessing, x))

    return _join(jax.lax.map(one_chunk, _split(pixels, chunk)))


def suffix_logits(
    parts: ModelParts,
    make_site: SiteFactory,
    segment_number: int,
    params: Params,
    scales: Scales,
    x: Array,
    start: Array | int,
) -> Array:
    """From the input of block `start` (may be traced) of a segment to logits [B, C]."""
    segment = parts.segments[segment_number]
    outer = make_site("", scales)
    x = run_blocks(segment, make_site, params, scales, x, start, segment.length)
    for later in parts.segments[segment_number + 1 :]:
        x, _ = scan_blocks(later, make_site, params, scales, later.enter(params, outer, x))
    return parts.head(params, outer, x)


def population_fitness(
    parts: ModelParts,
    specs: Specs,
    scoring: Scoring,
    segment_number: int,
    network: Quantized,
    candidates: Scales,
    index: Array,
    x: Array,
    teacher: Array,
    temperature: Array | float,
) -> Array:
    """Fitness [P] of candidates for one block's scales.

    Args:
      parts: the network's functions (static).
      specs: its quantizers (static).
      scoring: static settings.
      segment_number: which segment the block is in (static).
      network: the network at the current scales; blocks other than `index` use these.
      candidates: local scales of block `index`, leading P axis on every leaf.
      index: the block in its segment (traced).
      x: the block's input [B, ...].
      teacher: the float network's logits [B, C].
      temperature: of infoNCE (traced).
    """
    segment = parts.segments[segment_number]
    make_site = quant_sites(specs)
    local_specs = scope(specs, segment.name)
    float_block = at(network.params[segment.name], index)
    fitness_fn = make_fitness(scoring.fitness, temperature)
    num_candidates = jax.tree.leaves(candidates)[0].shape[0]
    group = largest_divisor(num_candidates, scoring.population_chunk)
    chunk = largest_divisor(x.shape[0], scoring.image_chunk)

    def one_block(block_scales: Scales, block_params: Params, x: Array) -> Array:
        return run_block(segment, block_params, QuantSite(local_specs, block_scales), x)

    def one_group(group_scales: Scales) -> Array:
        quantize = partial(fake_quant_weights, tuple(local_specs.items()), float_block)
        blocks = jax.vmap(quantize)(group_scales)

        def one_chunk(x: Array) -> Array:
            if group == 1:  # a mapped axis of one costs a slower matrix product on CPU
                x = one_block(at(group_scales, 0), at(blocks, 0), x)
            else:
                x = _join(jax.vmap(one_block, in_axes=(0, 0, None))(group_scales, blocks, x))
            logits = suffix_logits(
                parts, make_site, segment_number, network.quantized, network.scales, x, index + 1
            )
            return logits.reshape(group, -1, logits.shape[-1])

        logits = _join(jnp.moveaxis(jax.lax.map(one_chunk, _split(x, chunk)), 0, 1), axis=1)
        return jax.vmap(lambda student: batched(fitness_fn, student, teacher, scoring.batch_size))(logits)

    groups = jax.tree.map(lambda leaf: _split(leaf, group), candidates)
    return jax.lax.map(one_group, groups).reshape(num_candidates)


def _split(x: Array, chunk: int) -> Array:
    """[B, ...] -> [B / chunk, chunk, ...]."""
    return x.reshape(-1, largest_divisor(x.shape[0], chunk), *x.shape[1:])


def _join(x: Array, axis: int = 0) -> Array:
    """Merges an axis and the next: the inverse of `_split`."""
    return x.reshape(*x.shape[:axis], -1, *x.shape[axis + 2 :])
