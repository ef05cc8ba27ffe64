"""The compiled programs of the block-wise search: one of each kind per segment, whatever its depth."""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P

from evolq_jax.devices.mesh import CANDIDATE, DATA, spread
from evolq_jax.devices.placement import even_chunk
from evolq_jax.devices.unoptimized import Unoptimized
from evolq_jax.network.point import Quantized
from evolq_jax.network.run import window
from evolq_jax.network.walk import block_inputs, float_outputs, prefix_outputs
from evolq_jax.objective.objective import Objective, Teacher
from evolq_jax.quant.qparams import QParams, SiteQParams
from evolq_jax.search.population import Context, population_fitness
from evolq_jax.search.runner import Runner
from evolq_jax.typing import Array, Params

JITTER = 1e-6  # relative; float32 resolves 1.2e-7


@partial(jax.jit, static_argnames=("runner", "dtype"))
def cache_inputs(
    runner: Runner, network: Quantized, tokens: Array, *, dtype: Any = jnp.float32
) -> dict[str, Array]:
    """Every block's input, by segment: [L, B, ...]. They stay on the devices that their images are on.

    `tokens` [B, ...] are the images at the first segment's entry.
    """

    def on_device(network: Quantized, tokens: Array) -> dict[str, Array]:
        reading = network.reading(runner.specs)
        return block_inputs(runner.parts, reading, tokens, chunk=runner.image_chunk, dtype=dtype)

    return spread(runner.mesh, on_device, (P(), P(DATA)), P(None, DATA))(network, tokens)


@partial(jax.jit, static_argnames=("runner", "number"))
def block_input(runner: Runner, network: Quantized, tokens: Array, index: Array, *, number: int) -> Array:
    """The input of block `index` of segment `number` alone: [1, B, ...]."""

    def on_device(network: Quantized, tokens: Array, index: Array) -> Array:
        reading, chunk = network.reading(runner.specs), runner.image_chunk
        x = prefix_outputs(runner.parts, reading, tokens, chunk=chunk, number=number, stop=index)
        return x[None]

    in_specs = P(), P(DATA), P()
    return spread(runner.mesh, on_device, in_specs, P(None, DATA))(network, tokens, index)


@partial(jax.jit, static_argnames=("runner", "num_searched"))
def split(runner: Runner, inputs: Array, *, num_searched: int) -> list[Array]:
    """[L, B, ...] of the images searched on, and of those held out."""
    first = num_searched if runner.placement is None else runner.placement.shares[0]

    def on_device(inputs: Array) -> list[Array]:
        return jnp.split(inputs, [first], axis=1)

    return spread(runner.mesh, on_device, P(None, DATA), P(None, DATA))(inputs)


@partial(jax.jit, static_argnames=("runner", "number", "size"))
def float_blocks(
    runner: Runner, params: Params, inputs: Array, index: Array, *, number: int, size: int
) -> Array:
    """What `size` float blocks from `index` on make of their input [L, B, ...]: [B, ...]."""
    segment = runner.parts.segments[number]

    def on_device(params: Params, inputs: Array, index: Array) -> Array:
        x = _input_of(inputs, index)
        return float_outputs(segment, window(params[segment.name], index, size), x, chunk=runner.image_chunk)

    in_specs = P(), P(None, DATA), P()
    return spread(runner.mesh, on_device, in_specs, P(DATA))(params, inputs, index)


@partial(jax.jit, static_argnames=("runner", "objective", "number", "num_images", "block"))
def score(
    runner: Runner,
    objective: Objective,
    context: Context,
    candidates: QParams,
    *,
    number: int,
    num_images: int,
    block: int | None = None,
    count: Array | np.int32 | None = None,
) -> Array:
    """`population_fitness` [P] on the first images.

    On several devices every one runs its share of the candidates on its share of the images, or a single
    candidate on its share of these. Logits and features are gathered in the images' order, so contrastive
    batches are what they are on one.

    Args:
      runner: how the network is run.
      objective: what is minimised.
      context: with the inputs of all blocks of the segment as `x` [L, B, ...], and the teacher's logits and
        features of as many images or more.
      candidates: local scales of the blocks, leading axes [P, blocks] on every leaf.
      number: which segment the blocks are in.
      num_images: scored on.
      block: the number of the first block, if it is to be known: a program of its own, without loops whose
        bounds are traced. None: it is that of the context.
      count: so many candidates are scored, the first ones, one by one on one device; traced. None: all.
    """
    size, placement = jax.tree.leaves(candidates)[0].shape[0], runner.placement
    rows = 1 if runner.mesh is None else runner.mesh.shape[CANDIDATE]
    alone = size == 1 and rows > 1
    share = num_images if placement is None else placement.share(num_images)
    teacher = context.teacher._replace(own_output=None).rows(slice(num_images))
    context = context._replace(teacher=teacher._replace(own_output=context.teacher.own_output))

    def gather(found: Array) -> Array:
        if alone:
            found = jax.lax.all_gather(found, CANDIDATE, axis=1, tiled=True)[:, :share]
        return found if placement is None else placement.in_order(found, num_images)

    def on_device(context: Context, candidates: QParams, count: Array | None) -> Array:
        x, own_output = _input_of(context.x, context.block), context.teacher.own_output
        x, own_output = jax.tree.map(lambda leaf: leaf[:share], (x, own_output))
        if alone:
            x, own_output = jax.tree.map(partial(_row, rows, runner.image_chunk), (x, own_output))
        elif rows > 1:
            candidates = jax.tree.map(partial(_row, rows, 1), candidates)
        place = context.block if block is None else block
        own = context._replace(block=place, x=x, teacher=context.teacher._replace(own_output=own_output))
        fitness = population_fitness(
            runner, objective, own, candidates, number=number, count=count, gather=gather
        )
        return fitness if alone or rows == 1 else jax.lax.all_gather(fitness, CANDIDATE, tiled=True)

    in_specs = Context(P(), P(), P(None, DATA), Teacher(P(), P(), P(DATA)), P()), P(), P()  # type: ignore[arg-type]
    return spread(runner.mesh, on_device, in_specs, P())(context, candidates, count)[:size]


def _input_of(inputs: Array, index: Array | int) -> Array:
    """[L, B, ...] -> [B, ...]; of [1, B, ...] the only one, since an index that is too large is cut."""
    return jax.lax.dynamic_index_in_dim(inputs, index, keepdims=False).astype(jnp.float32)


def _row(rows: int, chunk: int, x: Array) -> Array:
    """Inside `spread`: the part of [N, ...] that this row of the candidates' axis runs.

    The last row's is filled up with copies of the last entry, to chunks of one size.
    """
    part = math.ceil(x.shape[0] / rows)
    part += -part % even_chunk(part, chunk)
    missing = part * rows - x.shape[0]
    x = jnp.concatenate([x, jnp.repeat(x[-1:], missing, axis=0)]) if missing else x
    return jax.lax.dynamic_slice_in_dim(x, jax.lax.axis_index(CANDIDATE) * part, part)


@partial(jax.jit, static_argnames=("sites", "size"))
def jitter(sites: tuple[str, ...], block_qparams: QParams, key: Array, size: int) -> QParams:
    """Copies of a block's numbers, the scales of `sites` each off by some millionths: [size] on every leaf.

    Nobody could tell them apart but by the values that lie next to a rounding edge.
    """
    keys = dict(zip(sites, jax.random.split(key, len(sites)), strict=True))

    def copies(name: str, site_qparams: SiteQParams) -> SiteQParams:
        repeated = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (size, *leaf.shape)), site_qparams)
        if name not in keys:
            return repeated
        noise = jax.random.uniform(keys[name], repeated.scale.shape, minval=-1.0, maxval=1.0)
        return repeated._replace(scale=repeated.scale * (1 + JITTER * noise))

    return {name: copies(name, site_qparams) for name, site_qparams in block_qparams.items()}


@partial(Unoptimized, static_argnames=("size",))
def copies(tree: Any, size: int) -> Any:
    """A population of so many that are all the same: leading axis [P] on every leaf."""
    return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (size, *leaf.shape)), tree)


@partial(Unoptimized, static_argnames=("size",))
def slice_blocks(stacked: Any, index: Array, size: int) -> Any:
    """`window`, compiled once for all leaves."""
    return window(stacked, index, size)


@partial(Unoptimized, static_argnames=("segment",))
def write_back(segment: str, qparams: QParams, block_qparams: QParams, index: Array) -> QParams:
    """The scales with those of blocks from `index` on put in."""
    qparams = dict(qparams)
    for name, site_qparams in block_qparams.items():
        site = f"{segment}/{name}"
        put = partial(jax.lax.dynamic_update_slice_in_dim, start_index=index, axis=0)
        qparams[site] = jax.tree.map(put, qparams[site], site_qparams)
    return qparams
