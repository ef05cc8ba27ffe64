"""The link `block_linear`: a linear map of a block's input makes up for what the block has lost, as in QwT.

Quantization without Tears (Fu et al., 2411.13918) adds a linear layer of the block's input to every block's
output. It is fitted in closed form, and kept as `correction` in the block's parameters (`network.run_block`).
It cannot be folded: besides the identity, the block has no other linear path from its input to its output. So
it is one more matrix product, in float, and its numbers count (`added_parameters`). Its bias could go into
the last layer's bias, but it stays with its weight: a block without its correction is then the block that
was corrected. Blocks that change the shape have no correction.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from evolq_jax.calibration.layer import Moments
from evolq_jax.calibration.link import FLOAT_STREAM, Calibration, NetworkLink, State
from evolq_jax.calibration.links.bias import matching_bias
from evolq_jax.calibration.links.ridge import ridge
from evolq_jax.calibration.streams import (
    Place,
    Streams,
    advance,
    at_input,
    block_of,
    enter_segment,
    image_streams,
    run_both,
)
from evolq_jax.network.parts import CORRECTION, ModelParts, Segment
from evolq_jax.network.run import at
from evolq_jax.quant.sites import float_sites
from evolq_jax.typing import Array, Params

DAMPINGS = (0.01, 0.1, 1.0, 10.0)  # of the ridge regression, relative to each channel's variance


class Half(NamedTuple):
    """Sums over the tokens of one half of the images: every second one."""

    moments: Moments
    square: Array  # of what is wanted, over all channels


def block_linear(calibration: Calibration, state: State, settings: None) -> State:
    """Fits and adds a correction to every block that keeps the shape, in the order of the forward pass.

    The wanted output is that of the float block minus that of the quantized block. A token counts by the
    inverse of its mean square in the float stream, as at the end of a branch in `layerwise`. To choose the
    damping, one half of the images is fitted and the other half tests, both ways. If no damping helps, the
    correction is zero.

    Returns:
      The state with `params[segment][CORRECTION]`: weight [L, D, D] and bias [L, D].
    """
    del settings
    parts = calibration.parts
    total, done = sum(segment.length for segment in parts.segments), 0
    streams, params = image_streams(calibration), dict(state.params)
    for number, segment in enumerate(parts.segments):
        place = Place(parts, calibration.specs, number)
        streams = enter_segment(place, state._replace(params=params), streams)
        x = jax.ShapeDtypeStruct(streams.floating.shape[1:], streams.floating.dtype)
        if _output(segment, params, x).shape != x.shape:
            streams = advance(place, state, streams, jnp.int32(0))
            done += segment.length
            continue
        found: list[Params] = []
        for block in range(segment.length):
            streams, correction = _corrected(place, state, streams, jnp.int32(block))
            found.append(jax.block_until_ready(correction))
            done += 1
            calibration.progress(done, total)
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *found)
        params[segment.name] = params[segment.name] | {CORRECTION: stacked}
    return state._replace(params=params)


def added_parameters(parts: ModelParts, params: Params, image_shape: tuple[int, ...]) -> int:
    """The number of parameters of all corrections. Nothing is computed."""
    count, site = 0, float_sites("", {})
    x = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    for segment in parts.segments:
        x = jax.eval_shape(lambda p, x, s=segment: s.enter(p, site, x), params, x)
        y = _output(segment, params, x)
        count += segment.length * (x.shape[-1] + 1) * x.shape[-1] if y.shape == x.shape else 0
        x = y
    return count


def _output(segment: Segment, params: Params, x: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    """The shape of a block's output for an input like `x`."""
    block = jax.eval_shape(lambda p: at(p, 0), params[segment.name])
    return jax.eval_shape(lambda p, x: segment.block(p, float_sites(segment.name, {}), x), block, x)


@partial(jax.jit, static_argnames=("place",))
def _corrected(place: Place, state: State, streams: Streams, index: Array) -> tuple[Streams, Params]:
    """Both networks' activations behind block `index`, and its correction, which the quantized one uses."""
    exact, rough = run_both(place, block_of(place, state, index), at_input(streams))
    even, odd = (half_moments(parity, streams.quantized, exact, rough) for parity in (0, 1))
    weight, bias = fit(even, odd)
    return Streams(exact, rough + streams.quantized @ weight + bias), {"weight": weight, "bias": bias}


def half_moments(parity: int, inputs: Array, exact: Array, rough: Array) -> Half:
    """The sums over the images whose number has this parity. All arrays are [chunks, B, ..., D]."""
    chunks, size, width = inputs.shape[0], inputs.shape[1], inputs.shape[-1]
    chosen = (jnp.arange(chunks * size) % 2 == parity).astype(jnp.float32).reshape(chunks, size)

    def one_chunk(sums: Half, chunk: tuple[Array, Array, Array, Array]) -> tuple[Half, None]:
        x, exact, rough, chosen = chunk
        token = 1 / (jnp.mean(exact**2, -1, keepdims=True) + 1e-12)
        token = (token * chosen.reshape(-1, *[1] * (x.ndim - 1))).reshape(-1, 1)
        x, wanted = x.reshape(-1, width), (exact - rough).reshape(-1, width)
        weighted = token * x
        moments = Moments(
            token.sum(), weighted.sum(0), (token * wanted).sum(0), weighted.T @ x, weighted.T @ wanted
        )
        return jax.tree.map(jnp.add, sums, Half(moments, (token * wanted**2).sum())), None

    vector, matrix = jnp.zeros(width), jnp.zeros((width, width))
    zero = Half(Moments(jnp.float32(0), vector, vector, matrix, matrix), jnp.float32(0))
    return jax.lax.scan(one_chunk, zero, (inputs, exact, rough, chosen))[0]


class Affine(NamedTuple):
    """A linear layer of one block."""

    weight: Array  # [D, D]
    bias: Array  # [D]


def fit(even: Half, odd: Half) -> Affine:
    """The layer for the damping with the least error across halves. Zeros: none helps."""

    def solve(half: Half, damping: Array) -> Affine:
        weight = ridge(half.moments, jnp.zeros_like(half.moments.xx), damping)
        return Affine(weight, matching_bias(half.moments, weight))

    def crosswise(damping: Array) -> Array:
        return _error(odd, solve(even, damping)) + _error(even, solve(odd, damping))

    dampings = jnp.asarray(DAMPINGS)
    errors = jax.lax.map(crosswise, dampings)
    best = jnp.argmin(errors)
    whole = jax.tree.map(jnp.add, even, odd)
    helps = errors[best] < whole.square
    return jax.tree.map(lambda leaf: jnp.where(helps, leaf, 0.0), solve(whole, dampings[best]))


def _error(half: Half, layer: Affine) -> Array:
    """The sum of squares of `x @ weight + bias` minus the wanted output."""
    m, (weight, bias) = half.moments, layer
    squares = (weight * (m.xx @ weight)).sum() + m.total * (bias**2).sum() + half.square
    return (
        squares + 2 * (bias * (m.x @ weight)).sum() - 2 * (weight * m.xt).sum() - 2 * (bias * m.target).sum()
    )


BLOCK_LINEAR = NetworkLink(
    "block_linear",
    "adds to each block's output a linear layer of its input, in float, fitted to what the block has lost",
    block_linear,
    changes_params=True,
    last=True,
    needs=(FLOAT_STREAM,),
    added_parameters=added_parameters,
)
