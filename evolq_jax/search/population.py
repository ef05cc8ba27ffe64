"""Scoring a population of one block's scales by the whole network's output, from the block's input on.

Blocks before the searched one are not run: their output is cached once per pass. Blocks after it are
the same for all candidates, so candidates and images are one batch there.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from evolq_jax.network.chunks import join, largest_divisor, split
from evolq_jax.network.parts import ModelParts, Segment
from evolq_jax.network.point import Quantized
from evolq_jax.network.run import at, index_in, run_block, window
from evolq_jax.network.walk import suffix_ends
from evolq_jax.objective.fitness import batched, relative_error
from evolq_jax.objective.scoring import Scoring
from evolq_jax.quant.qparams import QParams
from evolq_jax.quant.sites import QuantSite, fake_quant_weights, quant_sites
from evolq_jax.quant.spec import QuantSpec, Specs, scope
from evolq_jax.typing import Array, Params


class _Ends(NamedTuple):
    """What a group of candidates made of B images; None: the fitness has no use for it."""

    logits: Array | None  # [group, B, C]
    errors: Array | None  # of the searched blocks' own output [group, B]
    features: Array | None  # [group, B, ...]


def population_fitness(
    parts: ModelParts,
    specs: Specs,
    scoring: Scoring,
    segment_number: int,
    network: Quantized,
    candidates: QParams,
    index: Array | int,
    x: Array,
    teacher: Array,
    temperature: Array | float,
    target: Array | None = None,
    features: Array | None = None,
    gather: Callable[[Array], Array] = lambda found: found,
) -> Array:
    """Fitness [P] of candidates for the scales of a few neighbouring blocks (often one).

    Args:
      parts: the network's functions (static).
      specs: its quantizers (static).
      scoring: static settings.
      segment_number: which segment the block is in (static).
      network: the network at the current scales; all other blocks use these.
      candidates: local scales of the blocks, leading axes [P, blocks] on every leaf.
      index: the first of the blocks in its segment (traced).
      x: its input [B, ...].
      teacher: the float network's logits [B, C].
      temperature: of infoNCE (traced).
      target: the float blocks' output on `x`; needed where the fitness has a `local` term.
      features: the teacher's [B, ...]; needed where the fitness has a `features` term.
      gather: makes all images' logits and errors [P, B, ...] of those of `x`, where `x` is a device's share.
    """
    segment = parts.segments[segment_number]
    local_specs = scope(specs, segment.name)
    num_candidates, num_searched = jax.tree.leaves(candidates)[0].shape[:2]
    index = index_in(segment, index)
    float_blocks = window(network.params[segment.name], index, num_searched)
    quantize = jax.vmap(partial(fake_quant_weights, tuple(local_specs.items())))
    group = largest_divisor(num_candidates, scoring.population_chunk)
    chunk = largest_divisor(x.shape[0], scoring.image_chunk)
    wanted = target if scoring.has_local else None

    def one_group(group_qparams: QParams) -> Array:
        blocks = jax.vmap(quantize, in_axes=(None, 0))(float_blocks, group_qparams)

        def one_chunk(chunk: tuple[Array, Array | None]) -> _Ends:
            x, wanted = chunk
            x = _run_group(segment, local_specs, group_qparams, blocks, x)
            errors = logits = made = None
            if wanted is not None:
                outputs = x.reshape(group, *wanted.shape)
                errors = jax.vmap(relative_error, in_axes=(0, None))(outputs, wanted)
            if scoring.runs_all:
                at_end = network.quantized, network.qparams, x, index + num_searched
                has_features = scoring.features_weight > 0
                ends = suffix_ends(parts, quant_sites(specs), segment_number, *at_end, has_features)
                logits, made = jax.tree.map(lambda y: y.reshape(group, -1, *y.shape[1:]), ends)
            return _Ends(logits, errors, made)

        chunks = jax.tree.map(lambda leaf: split(leaf, chunk), (x, wanted))
        # [chunks, group, chunk, ...] -> [group, B, ...]
        ends = jax.tree.map(lambda y: join(jnp.moveaxis(y, 0, 1), axis=1), jax.lax.map(one_chunk, chunks))
        return _sum_of_terms(scoring, temperature, teacher, features, jax.tree.map(gather, ends))

    groups = jax.tree.map(lambda leaf: split(leaf, group), candidates)
    return jax.lax.map(one_group, groups).reshape(num_candidates)


def _run_group(
    segment: Segment, specs: Mapping[str, QuantSpec], qparams: QParams, blocks: Params, x: Array
) -> Array:
    """The searched blocks of a group of candidates (axes [group, blocks]) on x [b, ...]: [group b, ...]."""
    group, num_searched = jax.tree.leaves(qparams)[0].shape[:2]

    def run(qparams: QParams, params: Params, x: Array) -> Array:
        for block in range(num_searched):  # one but for a few: a loop of one would cost a slower program
            x = run_block(segment, at(params, block), QuantSite(specs, at(qparams, block)), x)
        return x

    if group == 1:  # a mapped axis of one costs a slower matrix product on CPU
        return run(at(qparams, 0), at(blocks, 0), x)
    return join(jax.vmap(run, in_axes=(0, 0, None))(qparams, blocks, x))


def _sum_of_terms(
    scoring: Scoring, temperature: Array | float, teacher: Array, features: Array | None, ends: _Ends
) -> Array:
    """The fitness [group] of what candidates made of all images."""
    total, fitness_fn = jnp.zeros(()), scoring.on_logits(temperature)
    if fitness_fn is not None and ends.logits is not None:
        score = partial(batched, fitness_fn, teacher=teacher, batch_size=scoring.batch_size)
        total = jax.vmap(score)(ends.logits)
    if ends.features is not None:
        if features is None:
            raise ValueError(f"the fitness '{scoring.fitness}' needs the teacher's features")
        found = jax.vmap(relative_error, in_axes=(0, None))(ends.features, features)
        total = total + scoring.features_weight * found.mean(-1)
    return total if ends.errors is None else total + scoring.local_weight * ends.errors.mean(-1)
