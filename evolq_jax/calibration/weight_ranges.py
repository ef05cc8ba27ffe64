"""The observers' numbers for weights, with one compiled observer for many of them.

A channel's numbers often follow from that channel alone. Then the weights of layers with inputs of one size
are cut into pieces of a few channels, and one loop runs the observer over all pieces. It is compiled once in
place of once for every shape of a weight. The loop also bounds memory: the errors of candidates take several
times the memory of a piece.
"""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from evolq_jax.network.parts import ModelParts
from evolq_jax.network.sites import is_stacked
from evolq_jax.quant.observers.of_quantizer import observer_of
from evolq_jax.quant.observers.of_weight import weight_qparams
from evolq_jax.quant.qparams import QParams, SiteQParams
from evolq_jax.quant.spec import QuantSpec, Specs
from evolq_jax.trees import flatten
from evolq_jax.typing import Array, Params


class _Weight(NamedTuple):
    """A weight and what its observer is given, stacked or with L = 1."""

    bits: Array  # [L, 1, ..., 1]
    values: Array  # [L, ..., K]
    importance: Array | None  # of the same shape


@partial(jax.jit, static_argnames=("parts", "specs"))
def weight_ranges(
    parts: ModelParts, specs: Specs, bits: dict[str, Array], params: Params, *, importance: dict[str, Array]
) -> QParams:
    """The numbers of all weights.

    Args:
      parts: the network's functions.
      specs: of the weights.
      bits: theirs.
      params: the network's.
      importance: weighs the squared errors of some weights, which these have the shape of.
    """
    leaves, found = flatten(params), QParams()
    groups: dict[tuple[QuantSpec, tuple[int, ...], bool], dict[str, _Weight]] = {}
    for name, spec in specs:
        given = _Weight(bits[name], leaves[name], importance.get(name))
        weight = given if is_stacked(parts, name) else jax.tree.map(lambda leaf: leaf[None], given)
        alike = weight.values.shape[1 : -1 if _is_cut(spec) else None]
        groups.setdefault((spec, alike, name in importance), {})[name] = weight
    for (spec, _, _), weights in groups.items():
        for name, qparams in _group(spec, weights).items():
            stacked = is_stacked(parts, name)
            found[name] = qparams if stacked else jax.tree.map(lambda leaf: leaf[0], qparams)
    return found


def _is_cut(spec: QuantSpec) -> bool:
    """Whether each channel of a weight can be observed by itself."""
    return spec.per_channel and observer_of(spec).channels_apart


def _group(spec: QuantSpec, weights: dict[str, _Weight]) -> QParams:
    """The numbers of weights that share an observer's loop; leading axes [L]."""
    sizes = [weight.values.shape[-1] for weight in weights.values()]
    in_blocks = [weight.values.shape[-1] for weight in weights.values() if len(weight.values) > 1]
    # Layers of blocks are most of the work, and are cut evenly. The others are filled up.
    width = math.gcd(*in_blocks) if in_blocks else max(sizes)
    pieces = [_cut(weight, width) for weight in weights.values()]
    together = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *pieces)

    def of(piece: _Weight) -> SiteQParams:
        return weight_qparams(spec, piece.bits, piece.values, piece.importance)

    found, first, qparams = jax.lax.map(of, together), 0, QParams()
    for (name, weight), own in zip(weights.items(), pieces, strict=True):
        rows = slice(first, first + len(own.values))
        scale, zero_point = (_joined(leaf[rows], weight.values) for leaf in (found.scale, found.zero_point))
        qparams[name] = SiteQParams(scale, zero_point, weight.bits)
        first = rows.stop
    return qparams


def _cut(weight: _Weight, width: int) -> _Weight:
    """Pieces of `width` channels, filled up with zeros: [L, ..., K] -> [L pieces, ..., width]."""

    def in_pieces(leaf: Array) -> Array:
        missing = -leaf.shape[-1] % width
        filled = jnp.pad(leaf, [(0, 0)] * (leaf.ndim - 1) + [(0, missing)])
        cut = jnp.moveaxis(filled.reshape(*leaf.shape[:-1], -1, width), -2, 1)
        return cut.reshape(-1, *cut.shape[2:])

    bits, values, importance = weight
    values, importance = jax.tree.map(in_pieces, (values, importance))
    return _Weight(jnp.repeat(bits, len(values) // len(bits), axis=0), values, importance)


def _joined(leaf: Array, like: Array) -> Array:
    """The numbers of a weight's pieces [L pieces, ..., width or 1] as those of the weight."""
    by_block = leaf.reshape(len(like), -1, *leaf.shape[1:])
    if by_block.shape[1] == 1:
        return by_block[:, 0, ..., : like.shape[-1]]
    joined = jnp.moveaxis(by_block, 1, -2)
    return joined.reshape(*joined.shape[:-2], -1)[..., : like.shape[-1]]
