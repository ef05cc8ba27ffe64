"""Runs a network made of stacked segments, whole or in part.

Blocks run in a loop over their stacked parameters, so one block is compiled per segment, whatever its depth.
The loop's bounds may be traced. A segment of one block has no loop, so its block may change the shape. The
blocks that begin a stage do.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from evolq_jax.network.parts import CORRECTION, ModelParts, Segment
from evolq_jax.quant.qparams import QParams
from evolq_jax.quant.sites import RecordSite, SiteFactory
from evolq_jax.quant.spec import scope
from evolq_jax.typing import Array, Params, Preprocessing, PyTree, Site


def normalize(preprocessing: Preprocessing, pixels: Array) -> Array:
    """Normalises images: uint8 [B, height, width, channels] -> float32, as the network wants them."""
    mean, std = jnp.asarray(preprocessing.mean), jnp.asarray(preprocessing.std)
    return (pixels.astype(jnp.float32) / 255.0 - mean) / std


def at(stacked: PyTree, index: Array | int) -> PyTree:
    """One block's slice of a tree whose leaves have a leading L axis."""
    return jax.tree.map(lambda leaf: jax.lax.dynamic_index_in_dim(leaf, index, keepdims=False), stacked)


def run_block(segment: Segment, params: Params, site: Site, x: Array) -> Array:
    """One block, plus the linear layer of its input if calibration has added one as a correction."""
    y = segment.block(params, site, x)
    added = params.get(CORRECTION)
    return y if added is None else y + x @ added["weight"] + added["bias"]


def unchanged(params: Params, site: Site, x: Array) -> Array:
    """The `enter` of a segment that takes the output of the segment before as it is."""
    del params, site
    return x


def index_in(segment: Segment, index: Array | int) -> Array | int:
    """A block's index for `run_blocks`: as it is, but 0 if there is only one block."""
    return 0 if segment.length == 1 else index


def over_blocks(
    body: Callable[[Array, Any], tuple[Array, Any]], x: Array, blocks: PyTree, *, unroll: bool = False
) -> tuple[Array, Any]:
    """`jax.lax.scan` over blocks stacked on a leading axis. A single block runs without a loop."""
    if jax.tree.leaves(blocks)[0].shape[0] > 1:
        return jax.lax.scan(body, x, blocks, unroll=unroll)
    x, made = body(x, at(blocks, 0))
    return x, jax.tree.map(lambda leaf: leaf[None], made)


def window(stacked: PyTree, index: Array | int, size: int) -> PyTree:
    """`size` consecutive blocks, from block `index` on, of a tree whose leaves have a leading L axis."""
    return jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, index, size), stacked)


def forward(
    parts: ModelParts, make_site: SiteFactory, params: Params, qparams: Mapping[str, Any], images: Array
) -> Array:
    """Normalised images [B, height, width, channels] -> logits [B, C]."""
    outer = make_site("", qparams)
    x = images
    for segment in parts.segments:
        x = segment.enter(params, outer, x)
        x, _ = scan_blocks(segment, make_site, params, qparams, x)
    return parts.head(params, outer, x)


def with_features(
    parts: ModelParts, make_site: SiteFactory, run: Callable[[SiteFactory], Array]
) -> tuple[Array, Array]:
    """The result of `run(make_site)`, and the features [B, ...] that the network's head made on the way."""
    kept: dict[str, Array] = {}

    def recording(segment: str, entries: Mapping[str, Any]) -> Site:
        site = make_site(segment, entries)
        return site if segment else RecordSite(site, frozenset({parts.features}), kept)

    return run(recording), kept[parts.features]


def scan_blocks(
    segment: Segment,
    make_site: SiteFactory,
    params: Params,
    qparams: Mapping[str, Any],
    x: Array,
    *,
    unroll: bool = False,
) -> tuple[Array, Array]:
    """Runs all blocks of a segment. Returns its output and the input of every block [L, *x.shape].

    Unused inputs cost nothing. Unlike `run_blocks` this has a reverse gradient. With `unroll` there is no
    loop, and every block is compiled.
    """

    def body(x: Array, block: tuple[Params, QParams]) -> tuple[Array, Array]:
        block_params, block_qparams = block
        return run_block(segment, block_params, make_site(segment.name, block_qparams), x), x

    return over_blocks(body, x, (params[segment.name], scope(qparams, segment.name)), unroll=unroll)


def run_blocks(
    segment: Segment,
    make_site: SiteFactory,
    params: Params,
    qparams: Mapping[str, Any],
    x: Array,
    start: Array | int,
    stop: Array | int,
) -> Array:
    """Runs blocks `start` to `stop - 1` of a segment. With traced bounds there is no reverse gradient.

    In a segment of one block the bounds must be known, because they decide on the shape (`index_in`).
    """
    stacked = params[segment.name], scope(qparams, segment.name)

    def body(index: Array | int, x: Array) -> Array:
        block_params, block_qparams = at(stacked, index)
        return run_block(segment, block_params, make_site(segment.name, block_qparams), x)

    if segment.length == 1:
        return body(0, x) if start < stop else x
    return jax.lax.fori_loop(start, stop, body, x)
