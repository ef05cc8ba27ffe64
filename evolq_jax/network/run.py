"""Runs a network made of stacked segments, whole or in part.

A loop runs over the stacked parameters of a segment's blocks. So one block is compiled for each segment,
whatever its depth, and the loop's bounds may be traced. A segment of one block has no loop. So this block may
change the shape of its input, as the first block of a stage does.
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
    """Images as the network wants them: uint8 [B, height, width, channels] -> float32."""
    mean, std = jnp.asarray(preprocessing.mean), jnp.asarray(preprocessing.std)
    return (pixels.astype(jnp.float32) / 255.0 - mean) / std


def at(stacked: PyTree, index: Array | int) -> PyTree:
    """The slice of block `index` (may be traced) of a tree whose leaves have a leading L axis."""
    return jax.tree.map(lambda leaf: jax.lax.dynamic_index_in_dim(leaf, index, keepdims=False), stacked)


def run_block(segment: Segment, params: Params, site: Site, x: Array, *, last: bool = False) -> Array:
    """Runs one block, [B, ...] -> [B, ...]. Adds the correction, if calibration has fitted one.

    Args:
      segment: whose block it is.
      params: of this block alone, without L axis. The correction is a linear layer of the block's input.
      site: what the block calls at its quantization points.
      x: the block's input.
      last: whether only those tokens are wanted that the head reads.
    """
    run = segment.last if last and segment.last is not None else segment.block
    y, added = run(params, site, x), params.get(CORRECTION)
    return y if added is None else y + x[:, : y.shape[1]] @ added["weight"] + added["bias"]


def unchanged(params: Params, site: Site, x: Array) -> Array:
    """Returns x. It is the `enter` of a segment that takes the output of the segment before as it is."""
    del params, site
    return x


def index_in(segment: Segment, index: Array | int) -> Array | int:
    """The index of a block for `run_blocks`. In a segment of one block it is 0, and known."""
    return 0 if segment.length == 1 else index


def over_blocks(
    body: Callable[[Array, Any], tuple[Array, Any]], x: Array, blocks: PyTree, *, unroll: bool = False
) -> tuple[Array, Any]:
    """`jax.lax.scan` of `body` over blocks with a leading L axis. A single block runs without a loop.

    Args:
      body: `(x, block) -> (next x, anything)`; a block has no L axis.
      x: the first block's input [B, ...].
      blocks: any tree of what is stacked, such as parameters.
      unroll: whether every block is compiled, without a loop.

    Returns:
      The last block's output [B, ...], and what `body` made of every block, with a leading L axis.
    """
    if jax.tree.leaves(blocks)[0].shape[0] > 1:
        return jax.lax.scan(body, x, blocks, unroll=unroll)
    x, made = body(x, at(blocks, 0))
    return x, jax.tree.map(lambda leaf: leaf[None], made)


def window(stacked: PyTree, index: Array | int, size: int) -> PyTree:
    """`size` neighbouring blocks from block `index` (may be traced) on, of a tree with a leading L axis."""
    return jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, index, size), stacked)


def forward(parts: ModelParts, reading: Reading, images: Array) -> Array:
    """Runs the whole network: normalised images [B, height, width, channels] -> logits [B, C]."""
    x = images
    for segment in parts.segments:
        x = segment.enter(reading.params, reading.outside, x)
        x, _ = scan_blocks(segment, reading, x)
    return parts.head(reading.params, reading.outside, x)


def with_features(
    parts: ModelParts, reading: Reading, run: Callable[[Reading], Array]
) -> tuple[Array, Array]:
    """The result of `run(reading)`, and the features [B, ...] that the classifiers read on the way.

    Args:
      parts: the network's functions. They name the site of the features.
      reading: how the network is read.
      run: runs the network up to its head, with the reading that it is given.
    """
    kept: dict[str, Array] = {}

    def recording(segment: str, entries: Mapping[str, Any]) -> Site:
        site = reading.make_site(segment, entries)
        return site if segment else RecordSite(site, frozenset({parts.features}), kept)

    return run(reading._replace(make_site=recording)), kept[parts.features]


def scan_blocks(segment: Segment, reading: Reading, x: Array, *, unroll: bool = False) -> tuple[Array, Array]:
    """Runs all blocks of a segment. Unlike `run_blocks`, it has a reverse gradient.

    Args:
      segment: the segment.
      reading: of the whole network.
      x: the first block's input [B, ...].
      unroll: whether every block is compiled, without a loop.

    Returns:
      The last block's output [B, ...], and the input of every block [L, B, ...], which costs nothing if it is
      not used.
    """

    def body(x: Array, block: tuple[Params, QParams]) -> tuple[Array, Array]:
        params, qparams = block
        return run_block(segment, params, reading.make_site(segment.name, qparams), x), x

    return over_blocks(body, x, reading.stacked(segment.name), unroll=unroll)


def run_blocks(
    segment: Segment, reading: Reading, x: Array, *, start: Array | int, stop: Array | int
) -> Array:
    """Runs neighbouring blocks of a segment, [B, ...] -> [B, ...]. With traced bounds it has no gradient.

    In a segment of one block, both bounds must be known, because they decide on the shape (`index_in`).

    Args:
      segment: the segment.
      reading: of the whole network.
      x: the input of block `start`.
      start: the first block.
      stop: the block after the last one.
    """
    stacked = reading.stacked(segment.name)

    def body(index: Array | int, x: Array) -> Array:
        params, qparams = at(stacked, index)
        return run_block(segment, params, reading.make_site(segment.name, qparams), x)

    if segment.length == 1:
        return body(0, x) if start < stop else x
    return jax.lax.fori_loop(start, stop, body, x)


def run_to_head(segment: Segment, reading: Reading, x: Array, *, start: Array | int) -> Array:
    """Runs the last segment to its end, for the tokens that the head reads: [B, N, ...] -> [B, n, ...].

    Args:
      segment: the network's last one.
      reading: of the whole network.
      x: the input of block `start`, or the output of the last one.
      start: the first block; the segment's length: none is left.
    """
    if segment.last is None:
        return run_blocks(segment, reading, x, start=start, stop=segment.length)

    def last(x: Array) -> Array:
        params, qparams = at(reading.stacked(segment.name), segment.length - 1)
        return run_block(segment, params, reading.make_site(segment.name, qparams), x, last=True)

    num_read = jax.eval_shape(last, x).shape[1]
    if segment.length > 1:
        x = run_blocks(segment, reading, x, start=start, stop=segment.length - 1)
    if isinstance(start, int):
        return last(x) if start < segment.length else x[:, :num_read]
    return jax.lax.cond(start < segment.length, last, lambda x: x[:, :num_read], x)
