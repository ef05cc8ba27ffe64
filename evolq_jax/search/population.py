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
from evolq_jax.network.parts import Segment
from evolq_jax.network.point import Quantized
from evolq_jax.network.run import at, index_in, run_block, window
from evolq_jax.network.walk import suffix_logits
from evolq_jax.objective.objective import Objective, Outputs, Teacher
from evolq_jax.quant.qparams import QParams
from evolq_jax.quant.sites import QuantSite, fake_quant_weights
from evolq_jax.quant.spec import QuantSpec, scope
from evolq_jax.search.runner import Runner
from evolq_jax.typing import Array, Params


class Context(NamedTuple):
    """What candidates for a few neighbouring blocks (often one) are put into."""

    network: Quantized  # at the current scales, which all other blocks use
    block: Array | int  # number of the first of the blocks in its segment; traced, or known
    x: Array  # that block's input [B, ...]
    teacher: Teacher  # on the same images
    temperature: Array | float = 3.0  # of infoNCE; traced


def population_fitness(
    runner: Runner,
    objective: Objective,
    context: Context,
    candidates: QParams,
    *,
    number: int = 0,
    count: Array | None = None,
    gather: Callable[[Array], Array] = lambda found: found,
) -> Array:
    """Fitness [P] of candidates for the scales of a few neighbouring blocks.

    Args:
      runner: how the network is run (static).
      objective: what is minimised (static).
      context: what the candidates are put into.
      candidates: local scales of the blocks, leading axes [P, blocks] on every leaf.
      number: which segment the blocks are in (static).
      count: so many are scored, the first ones; traced, for a `population_chunk` of 1. None: all.
      gather: makes all images' logits and errors [P, B, ...] of those of `context.x`, where that is a
        device's share.
    """
    parts, specs, network = runner.parts, runner.specs, context.network
    segment = parts.segments[number]
    local_specs = scope(specs, segment.name)
    num_candidates, num_searched = jax.tree.leaves(candidates)[0].shape[:2]
    index = index_in(segment, context.block)
    float_blocks = window(network.params[segment.name], index, num_searched)
    quantize = jax.vmap(partial(fake_quant_weights, tuple(local_specs.items())))
    group = largest_divisor(num_candidates, runner.population_chunk)
    chunk = largest_divisor(context.x.shape[0], runner.image_chunk)
    wanted = context.teacher.own_output if objective.is_local else None

    def one_group(group_qparams: QParams) -> Array:
        blocks = jax.vmap(quantize, in_axes=(None, 0))(float_blocks, group_qparams)

        def one_chunk(chunk: tuple[Array, Array | None]) -> Outputs:
            x, wanted = chunk
            x = _run_group(segment, local_specs, group_qparams, blocks, x=x)
            outputs = Outputs()
            if objective.runs_all:
                run = partial(suffix_logits, parts, x=x, number=number, start=index + num_searched)
                outputs = objective.outputs(parts, network.reading(specs), run)
                outputs = jax.tree.map(lambda y: y.reshape(group, -1, *y.shape[1:]), outputs)
            if wanted is None:
                return outputs
            by_candidate = x.reshape(group, *wanted.shape)
            errors = jax.vmap(objective.own_errors, in_axes=(0, None))(by_candidate, wanted)
            return outputs._replace(own_errors=errors)

        chunks = jax.tree.map(lambda leaf: split(leaf, chunk), (context.x, wanted))
        # [chunks, group, chunk, ...] -> [group, B, ...]
        outputs = jax.tree.map(lambda y: join(jnp.moveaxis(y, 0, 1), axis=1), jax.lax.map(one_chunk, chunks))
        fitness = partial(objective, teacher=context.teacher, temperature=context.temperature)
        return jax.vmap(fitness)(jax.tree.map(gather, outputs))

    groups = jax.tree.map(lambda leaf: split(leaf, group), candidates)
    if count is None:
        return jax.lax.map(one_group, groups).reshape(num_candidates)

    def one_more(place: Array, fitness: Array) -> Array:
        return fitness.at[place].set(one_group(at(groups, place))[0])

    return jax.lax.fori_loop(0, count, one_more, jnp.full(num_candidates, jnp.nan, jnp.float32))


def _run_group(
    segment: Segment, specs: Mapping[str, QuantSpec], qparams: QParams, blocks: Params, *, x: Array
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
