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
from evolq_jax.network.reading import Reading
from evolq_jax.quant.qparams import QParams
from evolq_jax.quant.sites import RecordSite
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


def forward(parts: ModelParts, reading: Reading, images: Array) -> Array:
    """Normalised images [B, height, width, channels] -> logits [B, C]."""
    x = images
    for segment in parts.segments:
        x = segment.enter(reading.params, reading.outside, x)
        x, _ = scan_blocks(segment, reading, x)
    return parts.head(reading.params, reading.outside, x)


def with_features(
    parts: ModelParts, reading: Reading, run: Callable[[Reading], Array]
) -> tuple[Array, Array]:
    """The result of `run(reading)`, and the features [B, ...] that the network's head made on the way."""
    kept: dict[str, Array] = {}

    def recording(segment: str, entries: Mapping[str, Any]) -> Site:
        site = reading.make_site(segment, entries)
        return site if segment else RecordSite(site, frozenset({parts.features}), kept)

    return run(reading._replace(make_site=recording)), kept[parts.features]


def scan_blocks(segment: Segment, reading: Reading, x: Array, *, unroll: bool = False) -> tuple[Array, Array]:
    """Runs all blocks of a segment, which unlike `run_blocks` has a reverse gradient.

    Args:
      segment: the segment.
      reading: of the whole network.
      x: the first block's input [B, ...].
      unroll: without a loop, so that every block is compiled.

    Returns:
      The last block's output [B, ...], and the input of every block [L, B, ...], which costs nothing where it
      is not used.
    """

    def body(x: Array, block: tuple[Params, QParams]) -> tuple[Array, Array]:
        params, qparams = block
        return run_block(segment, params, reading.make_site(segment.name, qparams), x), x

    return over_blocks(body, x, reading.stacked(segment.name), unroll=unroll)


def run_blocks(
    segment: Segment, reading: Reading, x: Array, *, start: Array | int, stop: Array | int
) -> Array:
    """Runs some blocks of a segment. With traced bounds there is no reverse gradient.

    Args:
      segment: the segment.
      reading: of the whole network.
      x: the input [B, ...] of block `start`.
      start: the first block. In a segment of one block both bounds must be known, because they decide on the
        shape (`index_in`).
      stop: the block after the last.
    """
    stacked = reading.stacked(segment.name)

    def body(index: Array | int, x: Array) -> Array:
        params, qparams = at(stacked, index)
        return run_block(segment, params, reading.make_site(segment.name, qparams), x)

    if segment.length == 1:
        return body(0, x) if start < stop else x
    return jax.lax.fori_loop(start, stop, body, x)
