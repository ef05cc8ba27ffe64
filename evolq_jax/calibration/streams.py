"""The activations of two networks side by side: the float one, and the quantized one as corrected so far."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from evolq_jax.calibration.link import Calibration, State
from evolq_jax.devices.mesh import num_shares
from evolq_jax.network.chunks import image_chunks
from evolq_jax.network.parts import BLOCK_INPUT, ModelParts, Segment
from evolq_jax.network.run import at, unchanged
from evolq_jax.network.sites import is_stacked
from evolq_jax.quant.qparams import QParams
from evolq_jax.quant.sites import RecordSite, fake_quant_weights, float_sites, quant_sites
from evolq_jax.quant.spec import Specs, scope
from evolq_jax.typing import Array, Params, Site


class Streams(NamedTuple):
    """Activations of all calibration images, in chunks [chunks, B, ...]."""

    floating: Array
    quantized: Array


class Inside(NamedTuple):
    """Activations of both networks inside a block, by site. `BLOCK_INPUT` is what the block is given."""

    floating: dict[str, Array]
    quantized: dict[str, Array]


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


def enter_segment(place: Place, state: State, streams: Streams) -> Streams:
    """Both networks' activations at the entry of a segment."""
    return streams if place.segment.enter is unchanged else _entered(place, state, streams)


@partial(jax.jit, static_argnames=("place",))
def _entered(place: Place, state: State, streams: Streams) -> Streams:
    enter = place.segment.enter
    # Blocks are not entered, so their weights stay as they are.
    specs = tuple((name, spec) for name, spec in place.specs if not is_stacked(place.parts, name))
    quantized = fake_quant_weights(specs, state.params, state.qparams)
    float_site, quant_site = float_sites("", {}), quant_sites(place.specs)("", state.qparams)
    return Streams(
        jax.lax.map(lambda x: enter(state.reference, float_site, x), streams.floating),
        jax.lax.map(lambda x: enter(quantized, quant_site, x), streams.quantized),
    )


@partial(jax.jit, static_argnames=("place",))
def advance(place: Place, state: State, streams: Streams, index: Array) -> Streams:
    """Both networks' activations behind block `index`."""
    return run_both(place, block_of(place, state, index), at_input(streams))


def at_input(streams: Streams) -> Inside:
    """What is known inside a block before it runs: its input."""
    return Inside({BLOCK_INPUT: streams.floating}, {BLOCK_INPUT: streams.quantized})


def run_both(place: Place, block: Block, known: Inside) -> Streams:
    """Both networks' activations behind a block, from those that are known inside it."""
    run = runner(place, block, frozenset())
    return jax.lax.map(lambda chunk: run(chunk)[0], known)


leave = jax.jit(run_both, static_argnums=0)


def runner(place: Place, block: Block, names: frozenset[str]) -> Callable[[Inside], tuple[Streams, Inside]]:
    """A function that runs a block in both networks on a chunk of images, from what is known of them.

    It gives the activations behind the block, and those at the sites in `names`, in the order in which the
    block reads them.
    """
    segment, (reference, params, qparams) = place.segment, block
    quantized = fake_quant_weights(place.local_specs, params, qparams)
    float_site, quant_site = float_sites(segment.name, {}), quant_sites(place.specs)(segment.name, qparams)

    def one(site: Site, params: Params, known: dict[str, Array]) -> tuple[Array, dict[str, Array]]:
        recording = RecordSite(site, names, known=known)
        return segment.block(params, recording, known[BLOCK_INPUT]), recording.kept

    def run(known: Inside) -> tuple[Streams, Inside]:
        exact, kept = one(float_site, reference, known.floating)
        rough, also_kept = one(quant_site, quantized, known.quantized)
        return Streams(exact, rough), Inside(kept, also_kept)

    return run


def block_of(place: Place, state: State, index: Array) -> Block:
    """Reference, parameters and quantizers' numbers of block `index`."""
    name = place.segment.name
    stacked = Block(state.reference[name], state.params[name], scope(state.qparams, name))
    return at(stacked, index)


one_block = jax.jit(block_of, static_argnums=0)
