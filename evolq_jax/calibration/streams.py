"""The activations of two networks side by side: the float one, and the quantized one as corrected so far."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from evolq_jax.calibration.link import Calibration, State
from evolq_jax.devices.mesh import num_shares
from evolq_jax.network.chunks import image_chunks
from evolq_jax.network.parts import ModelParts, Segment
from evolq_jax.network.run import at
from evolq_jax.quant.qparams import QParams
from evolq_jax.quant.sites import fake_quant_weights, float_sites, quant_sites
from evolq_jax.quant.spec import Specs, scope
from evolq_jax.typing import Array, Params


class Streams(NamedTuple):
    """Activations of all calibration images, in chunks [chunks, B, ...]."""

    floating: Array
    quantized: Array


class Place(NamedTuple):
    """A segment (static). A traced index selects the block, so that all blocks share programs."""

    parts: ModelParts
    specs: Specs
    number: int  # of the segment

    @property
    def segment(self) -> Segment:
        """The segment itself."""
        return self.parts.segments[self.number]

    @property
    def local_specs(self) -> Specs:
        """The quantizers of the segment, by local site name."""
        return tuple(scope(self.specs, self.segment.name).items())


class Block(NamedTuple):
    """One block's reference and parameters, and its quantizers' numbers by local site name."""

    reference: Params
    params: Params
    qparams: QParams


def image_streams(calibration: Calibration) -> Streams:
    """The calibration images in chunks [chunks, B, height, width, channels], twice."""
    in_chunks = jax.jit(image_chunks, static_argnums=(1, 2))
    images = jnp.concatenate(list(calibration.batches))
    images = in_chunks(images, calibration.chunk, num_shares(calibration.mesh))
    return Streams(images, images)


@partial(jax.jit, static_argnames=("place",))
def enter_segment(place: Place, state: State, streams: Streams) -> Streams:
    """Both networks' activations at the entry of a segment."""
    enter = place.segment.enter
    quantized = fake_quant_weights(place.specs, state.params, state.qparams)
    float_site, quant_site = float_sites("", {}), quant_sites(place.specs)("", state.qparams)
    return Streams(
        jax.lax.map(lambda x: enter(state.reference, float_site, x), streams.floating),
        jax.lax.map(lambda x: enter(quantized, quant_site, x), streams.quantized),
    )


@partial(jax.jit, static_argnames=("place",))
def advance(place: Place, state: State, streams: Streams, index: Array) -> Streams:
    """Both networks' activations behind block `index`."""
    return run_both(place, block_of(place, state, index), streams)


def run_both(place: Place, block: Block, streams: Streams) -> Streams:
    """Both networks' activations behind a block, from those before it."""
    segment, (reference, params, qparams) = place.segment, block
    quantized = fake_quant_weights(place.local_specs, params, qparams)
    float_site, quant_site = float_sites(segment.name, {}), quant_sites(place.specs)(segment.name, qparams)
    return Streams(
        jax.lax.map(lambda x: segment.block(reference, float_site, x), streams.floating),
        jax.lax.map(lambda x: segment.block(quantized, quant_site, x), streams.quantized),
    )


def block_of(place: Place, state: State, index: Array) -> Block:
    """Reference, parameters and quantizers' numbers of block `index`."""
    name = place.segment.name
    stacked = Block(state.reference[name], state.params[name], scope(state.qparams, name))
    return at(stacked, index)
