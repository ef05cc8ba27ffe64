"""What arrives at a layer: both networks run on to its input, and its moments are summed over all images.

A layer is changed before the next one is reached. So a block runs in pieces, from one layer's input to the
next one's. What a layer reads is kept for all images, and the next piece begins there. Each network thus runs
once, however many layers a block has.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from evolq_jax.calibration import patches
from evolq_jax.calibration.layer import Layer, Moments, moments_of, of_output
from evolq_jax.calibration.streams import Block, Inside, Place, runner
from evolq_jax.network.parts import BLOCK_INPUT, Linear
from evolq_jax.trees import flatten
from evolq_jax.typing import Array

KEPT_BYTES = 2**31  # inside a block, of all images; pieces begin further back than where this is reached


class Stop(NamedTuple):
    """A layer at which the walk stops, in any block of a segment. Static."""

    place: Place
    linear: Linear
    relative: bool  # whether a token's error counts relative to its stream's size

    @property
    def names(self) -> frozenset[str]:
        """The sites that the segment's layers read, and those to which their outputs are added."""
        linears = self.place.segment.linears
        return frozenset(site for linear in linears for site in (linear.source, linear.residual) if site)


class Weighing(NamedTuple):
    """How the errors of a layer's tokens are weighed."""

    tokens: Array | None  # of every block [chunks, L, B, N]; None: all the same
    block: Array  # its index
    pull: float  # the share of the stream's error so far that is corrected


@partial(jax.jit, static_argnames=("stop",))
def arrive(stop: Stop, block: Block, known: Inside, weighing: Weighing) -> tuple[Moments, Inside]:
    """Runs both networks on to the input of a layer.

    Args:
      stop: the layer.
      block: its block, in which the layers before this one have been changed.
      known: activations inside the block, of all images in chunks [chunks, B, ...].
      weighing: of errors.

    Returns:
      The moments of the layer's quantized input and of the output that would bring both networks together,
      and what is known now: all that was, and what no layer from this one on can change.
    """
    linear, run, tokens = stop.linear, runner(stop.place, block, stop.names), weighing.tokens
    reference = layer_of(block._replace(params=block.reference), linear.name)
    if tokens is not None:
        tokens = jax.lax.dynamic_index_in_dim(tokens, weighing.block, 1, keepdims=False)

    def one_chunk(chunk: tuple[Inside, Array | None]) -> tuple[Moments, Inside]:
        known, tokens = chunk
        found = run(known)[1]
        moments = _moments(stop, reference, _joined(known, found), tokens, pull=weighing.pull)
        floating = settled(linear, known.floating, found.floating)
        return moments, Inside(floating, settled(linear, known.quantized, found.quantized))

    shapes, found = jax.eval_shape(one_chunk, jax.tree.map(lambda leaf: leaf[0], (known, tokens)))
    count = jax.tree.leaves(known)[0].shape[0]
    fits = _num_bytes(known) + count * _num_bytes(found) <= KEPT_BYTES

    def add(sums: Moments, chunk: tuple[Inside, Array | None]) -> tuple[Moments, Inside]:
        moments, found = one_chunk(chunk)
        return jax.tree.map(jnp.add, sums, moments), found if fits else Inside({}, {})

    zeros = jax.tree.map(jnp.zeros_like, shapes)
    sums, new = jax.lax.scan(add, zeros, (known, tokens))
    if _by_input(linear, reference.weight, sums.xx):
        sums = of_output(sums, reference)
    return sums, _joined(known, new)


def layer_of(block: Block, name: str) -> Layer:
    """A linear layer of a block."""
    leaves, site = flatten(block.params), f"{name}/weight"
    return Layer(leaves[site], leaves[f"{name}/bias"], block.qparams.get(site))


def _moments(
    stop: Stop, reference: Layer, values: Inside, tokens: Array | None, *, pull: float | Array
) -> Moments:
    """A chunk's moments: of the output, or `_by_input` of what the float network multiplies for it."""
    linear, weight = stop.linear, reference.weight
    exact, x = (patches.tokens(own[linear.source], weight) for own in values)
    token = jnp.ones((exact.shape[-2], 1))
    if tokens is not None:
        token += tokens.reshape(-1, 1)
    if _by_input(linear, weight, x):
        return moments_of(token, x, exact)
    wanted = patches.product(exact, weight) + reference.bias
    if linear.residual is not None:
        added, rough = (_rows(linear, own[linear.residual]) for own in values)
        if linear.normed and stop.relative:
            # Only a token's error relative to the whole stream counts. Without this, the few tokens with
            # massive activations are all that is fitted.
            token /= ((wanted + added) ** 2).mean(-1, keepdims=True)
        wanted += pull * (added - rough)
    return moments_of(token, x, wanted)


def _by_input(linear: Linear, weight: Array, x: Array) -> bool:
    """Whether the output's moments cost less if the layer is applied to sums over tokens, not to each token.

    `x` has the layer's inputs on its last axis, and groups on the first of three.
    """
    groups = len(x) if x.ndim == 3 else 1
    return linear.residual is None and x.shape[-1] < 2 * weight.shape[-1] // groups


def _rows(linear: Linear, x: Array) -> Array:
    """The tensor to which a layer's output is added, in the order of the layer's tokens [T, out]."""
    x = x if linear.arrange is None else linear.arrange(x)
    return x.reshape(-1, x.shape[-1])


def settled(linear: Linear, known: dict[str, Array], found: dict[str, Array]) -> dict[str, Array]:
    """What the block has read by the time it reads the layer's input, and was not known.

    Layers that are still to change run later, so they have no part in it.
    """
    if linear.source == BLOCK_INPUT:
        return {}
    names = list(found)  # in the order in which the block calls them
    return {name: found[name] for name in names[: names.index(linear.source) + 1] if name not in known}


def _joined(one: Inside, other: Inside) -> Inside:
    return Inside(one.floating | other.floating, one.quantized | other.quantized)


def _num_bytes(tree: Any) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
