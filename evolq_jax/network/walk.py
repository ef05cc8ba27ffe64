"""Parts of a quantized network's forward pass. A search runs some once, keeps some, and repeats others."""

from typing import Any

import jax
import jax.numpy as jnp

from evolq_jax.network.chunks import in_chunks, join, split
from evolq_jax.network.parts import ModelParts, Segment
from evolq_jax.network.reading import Reading
from evolq_jax.network.run import index_in, normalize, over_blocks, run_blocks, run_to_head, scan_blocks
from evolq_jax.quant.sites import FloatSite
from evolq_jax.typing import Array, Params, Preprocessing


def block_inputs(
    parts: ModelParts, reading: Reading, tokens: Array, *, chunk: int, dtype: Any = jnp.float32
) -> dict[str, Array]:
    """Every block's input, by segment: [L, B, ...].

    Args:
      parts: the network's functions.
      reading: of the whole network.
      tokens: images at the first segment's entry [B, ...].
      chunk: images that run at once.
      dtype: the type in which inputs are kept. They are computed in float32.
    """

    def one_chunk(x: Array) -> dict[str, Array]:
        inputs = {}
        for number, segment in enumerate(parts.segments):
            x = segment.enter(reading.params, reading.outside, x) if number else x
            x, kept = scan_blocks(segment, reading, x)
            inputs[segment.name] = kept.astype(dtype)
        return inputs

    chunks = jax.lax.map(one_chunk, split(tokens, chunk))
    return {name: join(jnp.moveaxis(x, 0, 1), axis=1) for name, x in chunks.items()}


def prefix_outputs(
    parts: ModelParts, reading: Reading, tokens: Array, *, chunk: int, number: int, stop: Array | int
) -> Array:
    """The input [B, ...] of block `stop` (may be traced) of segment `number`; else as `block_inputs`."""
    *before, last = parts.segments[: number + 1]

    def one_chunk(x: Array) -> Array:
        for place, segment in enumerate(before):
            x = segment.enter(reading.params, reading.outside, x) if place else x
            x, _ = scan_blocks(segment, reading, x)
        x = last.enter(reading.params, reading.outside, x) if before else x
        return run_blocks(last, reading, x, start=0, stop=index_in(last, stop))

    return join(jax.lax.map(one_chunk, split(tokens, chunk)))


def embed(
    parts: ModelParts, reading: Reading, pixels: Array, *, preprocessing: Preprocessing, chunk: int
) -> Array:
    """uint8 images [B, height, width, channels] -> the first segment's entry [B, ...]."""

    def one_chunk(x: Array) -> Array:
        return parts.segments[0].enter(reading.params, reading.outside, normalize(preprocessing, x))

    return join(jax.lax.map(one_chunk, split(pixels, chunk)))


def suffix_logits(
    parts: ModelParts, reading: Reading, x: Array, *, number: int = 0, start: Array | int = 0
) -> Array:
    """Logits [B, C] from the input x [B, ...] of block `start` (may be traced) of segment `number`."""
    for place, segment in enumerate(parts.segments[number:], number):
        if place > number:
            x, start = segment.enter(reading.params, reading.outside, x), 0
        if segment is parts.segments[-1]:
            x = run_to_head(segment, reading, x, start=start)
        else:
            x = run_blocks(segment, reading, x, start=start, stop=segment.length)
    return parts.head(reading.params, reading.outside, x)


def whole_logits(parts: ModelParts, reading: Reading, images: Array) -> Array:
    """`run.forward` without the work for tokens that the head does not read.

    So the sites of the last block are not those that observers want to see.
    """
    return suffix_logits(parts, reading, parts.segments[0].enter(reading.params, reading.outside, images))


def float_outputs(segment: Segment, params: Params, x: Array, *, chunk: int) -> Array:
    """The output [B, ...] of neighbouring blocks in floating point.

    Args:
      segment: the segment.
      params: of these blocks, with a leading axis [blocks].
      x: the first one's input [B, ...].
      chunk: images that run at once.
    """

    def one_chunk(x: Array) -> Array:
        return over_blocks(lambda x, block: (segment.block(block, FloatSite(), x), None), x, params)[0]

    return in_chunks(one_chunk, x, chunk)
