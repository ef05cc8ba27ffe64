"""The compiled programs of the block-wise search: one of each kind per segment, whatever its depth."""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from evolq_jax.devices.layout import Layout, even_chunk
from evolq_jax.devices.mesh import CANDIDATE, DATA, spread
from evolq_jax.network.parts import ModelParts
from evolq_jax.network.point import Quantized, at_qparams
from evolq_jax.network.run import at, window
from evolq_jax.network.walk import block_inputs, float_outputs, prefix_outputs
from evolq_jax.objective.scoring import Scoring
from evolq_jax.quant.qparams import QParams, SiteQParams
from evolq_jax.quant.sites import quant_sites
from evolq_jax.quant.spec import Specs
from evolq_jax.search.population import population_fitness
from evolq_jax.search.space import SearchSpace
from evolq_jax.typing import Array, Params

JITTER = 1e-6  # relative; float32 resolves 1.2e-7


@partial(jax.jit, static_argnames=("parts", "specs", "chunk", "layout", "dtype"))
def cache_inputs(
    parts: ModelParts,
    specs: Specs,
    chunk: int,
    network: Quantized,
    tokens: Array,
    layout: Layout | None,
    dtype: Any = jnp.float32,
) -> dict[str, Array]:
    """Every block's input, by segment: [L, B, ...]. They stay on the devices that their images are on."""

    def on_device(network: Quantized, tokens: Array) -> dict[str, Array]:
        make_site = quant_sites(specs)
        return block_inputs(parts, make_site, chunk, network.quantized, network.qparams, tokens, dtype)

    return spread(mesh_of(layout), on_device, (P(), P(DATA)), P(None, DATA))(network, tokens)


@partial(jax.jit, static_argnames=("parts", "specs", "chunk", "number", "layout"))
def block_input(
    parts: ModelParts,
    specs: Specs,
    chunk: int,
    number: int,
    network: Quantized,
    tokens: Array,
    index: Array,
    layout: Layout | None,
) -> Array:
    """The input of one block of segment `number` alone: [1, B, ...]."""

    def on_device(network: Quantized, tokens: Array, index: Array) -> Array:
        make_site = quant_sites(specs)
        return prefix_outputs(
            parts, make_site, chunk, number, network.quantized, network.qparams, tokens, index
        )[None]

    in_specs = P(), P(DATA), P()
    return spread(mesh_of(layout), on_device, in_specs, P(None, DATA))(network, tokens, index)


@partial(jax.jit, static_argnames=("num_searched", "layout"))
def split(inputs: Array, num_searched: int, layout: Layout | None) -> list[Array]:
    """[L, B, ...] of the images searched on, and of those held out."""
    first = num_searched if layout is None else layout.shares[0]

    def on_device(inputs: Array) -> list[Array]:
        return jnp.split(inputs, [first], axis=1)

    return spread(mesh_of(layout), on_device, P(None, DATA), P(None, DATA))(inputs)


@partial(jax.jit, static_argnames=("parts", "chunk", "number", "size", "layout"))
def float_blocks(
    parts: ModelParts,
    chunk: int,
    number: int,
    size: int,
    params: Params,
    index: Array,
    inputs: Array,
    layout: Layout | None,
) -> Array:
    """What `size` float blocks from `index` on make of their input in the quantized network: [B, ...]."""
    segment = parts.segments[number]

    def on_device(params: Params, index: Array, inputs: Array) -> Array:
        x = _input_of(inputs, index)
        return float_outputs(segment, chunk, window(params[segment.name], index, size), x)

    in_specs = P(), P(), P(None, DATA)
    return spread(mesh_of(layout), on_device, in_specs, P(DATA))(params, index, inputs)


@partial(jax.jit, static_argnames=("parts", "specs", "scoring", "number", "num_images", "layout"))
def score(
    parts: ModelParts,
    specs: Specs,
    scoring: Scoring,
    number: int,
    network: Quantized,
    candidates: QParams,
    index: Array,
    inputs: Array,
    teacher: Array,
    temperature: Array,
    target: Array | None,
    features: Array | None,
    num_images: int,
    layout: Layout | None,
) -> Array:
    """Fitness [P] of candidates for the scales of blocks from `index` on, on the first images.

    `inputs` [L, B, ...] are all blocks'; `target` [B, ...] is what `float_blocks` gives; `features` [B, ...]
    are the teacher's. On several devices every one runs its share of the candidates on its share of the
    images, or a single candidate on its share of these. Logits and features are gathered in the images'
    order, so contrastive batches are what they are on one.
    """
    size = jax.tree.leaves(candidates)[0].shape[0]
    teacher, features = jax.tree.map(lambda leaf: leaf[:num_images], (teacher, features))
    rows = 1 if layout is None else layout.mesh.shape[CANDIDATE]
    alone = size == 1 and rows > 1
    share = num_images if layout is None else layout.share(num_images)

    def gather(found: Array) -> Array:
        if alone:
            found = jax.lax.all_gather(found, CANDIDATE, axis=1, tiled=True)[:, :share]
        return found if layout is None else layout.in_order(found, num_images)

    def on_device(
        network: Quantized,
        candidates: QParams,
        index: Array,
        inputs: Array,
        teacher: Array,
        temperature: Array,
        target: Array | None,
        features: Array | None,
    ) -> Array:
        x = _input_of(inputs, index)
        x, target = jax.tree.map(lambda leaf: leaf[:share], (x, target))
        if alone:
            x, target = jax.tree.map(partial(_row, rows, scoring.image_chunk), (x, target))
        elif rows > 1:
            candidates = jax.tree.map(partial(_row, rows, 1), candidates)
        at_block = candidates, index, x, teacher, temperature, target, features
        fitness = population_fitness(parts, specs, scoring, number, network, *at_block, gather)
        return fitness if alone or rows == 1 else jax.lax.all_gather(fitness, CANDIDATE, tiled=True)

    in_specs = P(), P(), P(), P(None, DATA), P(), P(), P(DATA), P()
    arguments = network, candidates, index, inputs, teacher, temperature, target, features
    return spread(mesh_of(layout), on_device, in_specs, P())(*arguments)[:size]


def _input_of(inputs: Array, index: Array) -> Array:
    """[L, B, ...] -> [B, ...]; of [1, B, ...] the only one, since an index that is too large is cut."""
    return jax.lax.dynamic_index_in_dim(inputs, index, keepdims=False).astype(jnp.float32)


def mesh_of(layout: Layout | None) -> Mesh | None:
    """None: one device."""
    return None if layout is None else layout.mesh


def _row(rows: int, chunk: int, x: Array) -> Array:
    """Inside `spread`: the part of [N, ...] that this row of the candidates' axis runs.

    The last row's is filled up with copies of the last entry, to chunks of one size.
    """
    part = math.ceil(x.shape[0] / rows)
    part += -part % even_chunk(part, chunk)
    missing = part * rows - x.shape[0]
    x = jnp.concatenate([x, jnp.repeat(x[-1:], missing, axis=0)]) if missing else x
    return jax.lax.dynamic_slice_in_dim(x, jax.lax.axis_index(CANDIDATE) * part, part)


@partial(jax.jit, static_argnames=("size",))
def jitter(block_qparams: QParams, key: Array, size: int) -> QParams:
    """Copies of a block's scales, each off by some millionths: [size] on every leaf.

    Nobody could tell them apart but by the values that lie next to a rounding edge.
    """
    names = sorted(block_qparams)
    keys = dict(zip(names, jax.random.split(key, len(names)), strict=True))

    def copies(name: str) -> SiteQParams:
        scale, zero_point = block_qparams[name]
        noise = jax.random.uniform(keys[name], (size, *scale.shape), minval=-1.0, maxval=1.0)
        return SiteQParams(
            scale * (1 + JITTER * noise), jnp.broadcast_to(zero_point, (size, *zero_point.shape))
        )

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
def quantize(specs: Specs, params: Params, qparams: QParams) -> Quantized:
    """The network at `qparams`."""
    return at_qparams(specs, params, qparams)


@partial(jax.jit, static_argnames=("segment",))
def write_back(segment: str, qparams: QParams, block_qparams: QParams, index: Array) -> QParams:
    """The scales with those of blocks from `index` on put in."""
    qparams = dict(qparams)
    for name, site_qparams in block_qparams.items():
        site = f"{segment}/{name}"
        put = partial(jax.lax.dynamic_update_slice_in_dim, start_index=index, axis=0)
        qparams[site] = jax.tree.map(put, qparams[site], site_qparams)
    return qparams


@partial(jax.jit, static_argnames=("space",))
def decode(space: SearchSpace, population: dict[str, Array], start_qparams: QParams, step: Array) -> QParams:
    """The blocks' scales for a population of solutions: leading axes [P, blocks] on every leaf."""
    by_block = jax.vmap(lambda solution, start: space.decode(solution, start, step))
    return jax.vmap(by_block, in_axes=(0, None))(population, start_qparams)
