"""The forward pass of an integer model as a function of images alone, with its codes packed."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import jax
import numpy as np

from evolq_jax.devices.precision import matmul_precision
from evolq_jax.integers.bitstream import num_bytes, unpack_traced
from evolq_jax.integers.files import pack_blocks
from evolq_jax.integers.marks import marked_parts, marked_reading
from evolq_jax.integers.model import IntegerModel, WeightCodes
from evolq_jax.network.network import as_input
from evolq_jax.network.parts import Segment
from evolq_jax.network.run import forward
from evolq_jax.network.sites import is_stacked
from evolq_jax.trees import flatten, unflatten
from evolq_jax.typing import Array, Params, Site


class Packed(NamedTuple):
    """The codes of one weight as bytes, block after block.

    Attributes:
      stream: uint8 [bytes], with zeros at the end: behind every block's start are `longest` bytes.
      places: int32 [L, 2], or [2] outside of blocks: the byte where each block's codes start, and their bits.
      longest: bytes of the block that has most.
      shape: of the codes of one block.
      signed: whether they may be negative.
    """

    stream: np.ndarray
    places: np.ndarray
    longest: int
    shape: tuple[int, ...]
    signed: bool


def packed_forward(model: IntegerModel) -> Callable[[Array], Array]:
    """uint8 images [B, height, width, channels] -> the logits [B, C] of `model`.

    All numbers are constants of the function. The codes of a block are unpacked when it runs.
    """
    weights = {name: _packed(model, name, weight) for name, weight in model.weights.items()}
    places = {name: weight.places for name, weight in weights.items()}
    numbers = unflatten({**model.float_params, **places}), jax.tree.map(np.asarray, model.qparams)

    def run(images: Array) -> Array:
        # Without the barrier XLA would compute with constants as it compiles, and round in other places.
        given = numbers, {name: weight.stream for name, weight in weights.items()}
        (params, qparams), streams = jax.lax.optimization_barrier(given)
        unpack = partial(_unpacked, weights, streams)
        outside = {name: leaf for name, leaf in params.items() if not is_stacked(model.parts, name)}
        reading = marked_reading(model.parts, model.specs, params | unpack("", outside), qparams)
        with matmul_precision(model.precision):
            parts = marked_parts(model.parts, model.specs)
            segments = tuple(_unpacking(segment, unpack) for segment in parts.segments)
            return forward(replace(parts, segments=segments), reading, as_input(model.preprocessing, images))

    return run


def _packed(model: IntegerModel, name: str, weight: WeightCodes) -> Packed:
    stacked = is_stacked(model.parts, name)
    shape = weight.codes.shape[1:] if stacked else weight.codes.shape
    sizes = [num_bytes(int(np.prod(shape)), bits) for bits in weight.bits.tolist()]
    starts, longest = np.cumsum([0, *sizes[:-1]]), max(sizes)
    stream = np.pad(pack_blocks(weight), (0, starts[-1] + longest - sum(sizes)))
    places = np.stack([starts, weight.bits], 1).astype(np.int32)
    return Packed(stream, places if stacked else places[0], longest, shape, weight.signed)


def _unpacked(
    weights: Mapping[str, Packed], streams: Mapping[str, Array], prefix: str, params: Params
) -> Params:
    """The parameters of one block, or those outside of blocks (no prefix), with codes where places were."""
    leaves = flatten(params)
    for name, leaf in leaves.items():
        if (weight := weights.get(prefix + name)) is not None:
            stream = jax.lax.dynamic_slice(streams[prefix + name], leaf[:1], (weight.longest,))
            leaves[name] = unpack_traced(stream, leaf[1], weight.shape, signed=weight.signed)
    return unflatten(leaves)


def _unpacking(segment: Segment, unpack: Callable[[str, Params], Params]) -> Segment:
    """The segment, with blocks that unpack their codes."""

    def block(params: Params, site: Site, x: Array) -> Array:
        return segment.block(unpack(f"{segment.name}/", params), site, x)

    return replace(segment, block=block)
