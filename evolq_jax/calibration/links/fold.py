"""Folds factors and offsets for each channel of an activation into the layers around it.

`fold` is RepQ-ViT's scale reparametrisation (Li et al., 2212.08254). A LayerNorm's output is quantized with a
scale and a zero point for each channel. Both are then folded into the norm's affine and into the next linear
layers. So one scale and one zero point are left for the whole tensor, and integers run as in per-tensor
quantization.
"""

from collections.abc import Container, Sequence
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp

from evolq_jax.calibration.link import CHANNELS, Calibration, NetworkLink, NotAfter, State
from evolq_jax.calibration.links.ranges import RangesConfig, ranges
from evolq_jax.network.parts import Channels
from evolq_jax.quant.observers.omse import OMSE
from evolq_jax.quant.qparams import SiteQParams
from evolq_jax.quant.quantizers.uniform import int_range
from evolq_jax.quant.spec import QuantSpec
from evolq_jax.trees import flatten, unflatten
from evolq_jax.typing import Array, Params

MAX_RATIO = 2.0**12  # between the scales of a tensor's channels: one that is always zero has no scale


def norms(calibration: Calibration) -> list[Channels]:
    """The outputs of LayerNorms, quantized uniformly, whose channels can be rescaled."""
    table, sites = dict(calibration.specs), calibration.sites
    return [
        entry
        for entry in calibration.parts.channels
        if "layer_norm" in sites[entry.site].roles
        and entry.site in table
        and table[entry.site].quantizer.equal_steps
    ]


def fold(calibration: Calibration, state: State, settings: RangesConfig) -> State:
    """Gives every LayerNorm's output a scale and a zero point for each channel, and folds them.

    The site's own observer finds a range for each channel on the float network (`omse`, if the observer gives
    powers of two). A zero point for each channel needs a bias into which it can be folded. If a reader has no
    bias (Swin's patch merging), each channel gets a scale, but all share the zero point.

    Returns:
      The state. Norms and readers are rescaled, in the reference too. The norms' sites have one scale and
      zero point each (repeated if the spec has one for each channel). The readers' ranges are found anew.
    """
    entries, table = norms(calibration), dict(calibration.specs)
    by_channel = tuple((entry.site, _by_channel(table[entry.site])) for entry in entries)
    found = ranges(calibration._replace(specs=by_channel), state, settings).qparams
    leaves, qparams, rescaled = flatten(state.params), dict(state.qparams), []
    for entry in entries:
        spec, own = table[entry.site], found[entry.site]
        if not all(f"{reader}/bias" in leaves for reader in entry.readers):
            own = with_one_zero_point(spec, own)
        one, factor, shift = reparametrise(own)
        shape = state.qparams[entry.site].scale.shape
        scale, zero_point = (jnp.broadcast_to(leaf, shape) for leaf in (one.scale, one.zero_point))
        qparams[entry.site] = SiteQParams(scale, zero_point, own.bits)
        rescaled.append((entry, factor, shift))
    state = rescale(state._replace(qparams=qparams), rescaled)
    return with_ranges(calibration, state, changed_weights(entries), settings)


def _by_channel(spec: QuantSpec) -> QuantSpec:
    return replace(spec, per_channel=True, observer=OMSE if spec.observer.by_channel else spec.observer)


def reparametrise(own: SiteQParams) -> tuple[SiteQParams, Array, Array]:
    """One scale and zero point [..., 1] for those of channels [..., K], with factors and shifts [..., K].

    `(x + shift) / factor`, quantized by the one scale, has the integers of `x` quantized by its own: factor
    `s / mean(s)` and shift `s (z - mean(z))`, means over channels (RepQ-ViT).
    """
    scale = jnp.maximum(own.scale, own.scale.max(-1, keepdims=True) / MAX_RATIO)
    one = SiteQParams(
        scale.mean(-1, keepdims=True),
        jnp.round(own.zero_point.mean(-1, keepdims=True)),
        own.bits,
    )
    return one, scale / one.scale, scale * (own.zero_point - one.zero_point)


def with_one_zero_point(spec: QuantSpec, own: SiteQParams) -> SiteQParams:
    """The smallest scales with which channels with a common zero point hold their ranges."""
    qmin, qmax = int_range(spec.signed, own.bits)
    common = jnp.round(own.zero_point.mean(-1, keepdims=True))
    below, above = common - qmin, qmax - common
    needed = (
        jnp.where(room > 0, held / jnp.maximum(room, 1), 0.0)
        for held, room in ((own.zero_point - qmin, below), (qmax - own.zero_point, above))
    )
    scale = own.scale * jnp.maximum(*needed)
    return SiteQParams(scale, jnp.broadcast_to(common, scale.shape), own.bits)


def rescale(state: State, rescaled: Sequence[tuple[Channels, Array, Array]]) -> State:
    """Turns every activation `x` of `rescaled` into `(x + shift) / factor`, and makes its readers undo this.

    `params` and `reference` still compute the same functions, up to rounding. Factors and shifts have the
    axes of the site's scales, [(L,) 1, ..., 1, K].
    """
    entries = tuple(entry for entry, _, _ in rescaled)
    numbers = [(factor, shift) for _, factor, shift in rescaled]
    return state._replace(
        params=_rescale(entries, numbers, state.params), reference=_rescale(entries, numbers, state.reference)
    )


@partial(jax.jit, static_argnames=("entries",))
def _rescale(entries: tuple[Channels, ...], numbers: Sequence[tuple[Array, Array]], params: Params) -> Params:
    leaves = flatten(params)
    for entry, pair in zip(entries, numbers, strict=True):
        weight, bias = leaves[f"{entry.maker}/weight"], leaves[f"{entry.maker}/bias"]
        lead, width = bias.shape[:-1], pair[0].shape[-1]
        factor, shift = (leaf.reshape(*lead, width) for leaf in pair)
        pad = [(0, 0)] * len(lead) + [(bias.shape[-1] - width, 0)]  # of qkv's outputs, values are the last
        divisor = jnp.pad(factor, pad, constant_values=1.0)
        leaves[f"{entry.maker}/bias"] = (bias + jnp.pad(shift, pad)) / divisor
        leaves[f"{entry.maker}/weight"] = weight / (
            divisor if weight.ndim == bias.ndim else divisor[..., None, :]
        )
        for reader in entry.readers:
            weight = leaves[f"{reader}/weight"]
            leaves[f"{reader}/weight"] = factor[..., None] * weight
            if f"{reader}/bias" in leaves:  # without one, shifts are zero
                leaves[f"{reader}/bias"] -= jnp.einsum("...i,...io->...o", shift, weight)
    return unflatten(leaves)


def changed_weights(entries: Sequence[Channels]) -> frozenset[str]:
    """The weights that rescaling these activations changes."""
    return frozenset(f"{layer}/weight" for entry in entries for layer in (entry.maker, *entry.readers))


def with_ranges(
    calibration: Calibration, state: State, names: Container[str], settings: RangesConfig
) -> State:
    """The state with the ranges of the named sites found anew."""
    specs = tuple((name, spec) for name, spec in calibration.specs if name in names)
    return ranges(calibration._replace(specs=specs), state, settings)


FOLD = NetworkLink(
    "fold",
    "gives the outputs of LayerNorms a scale for each channel and folds them into the layers around",
    fold,
    settings=RangesConfig(),
    changes_params=True,
    not_after=NotAfter(
        lambda earlier: earlier.corrects or earlier.rounds or earlier.name in ("clip", "own_output"),
        "finds weight ranges anew, which would undo what came before",
    ),
    needs=(CHANNELS,),
    shares_images=True,
)
