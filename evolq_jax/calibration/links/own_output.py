"""The link `own_output`: finds ranges of weights by their effect on the layer's output, channel by channel.

Observers compare ranges by the error of the weight itself. Here a few ranges are compared by the error of the
output channel, on the inputs that the quantized network feeds the layer. A channel's output does not depend
on the ranges of other channels, so all channels of a layer are searched at once. All tokens judge each
channel, so thousands of free scales do not overfit the few calibration images. AdaLog (Wu et al., 2407.12951)
and PTQ4ViT (Yuan et al., 2111.12293) score scales by a layer's output too, one tensor at a time.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from evolq_jax.calibration.layer import Layer, Moments
from evolq_jax.calibration.link import LayerLink, NotAfter
from evolq_jax.quant.qparams import SiteQParams
from evolq_jax.quant.quantizers.uniform import int_range
from evolq_jax.quant.sites import fake_quant_weight
from evolq_jax.quant.spec import QuantSpec
from evolq_jax.typing import Array

# How much of the error that reaches the layer its own rounding is to make up for. With 0 a channel's output
# is compared with what the float weight makes of the same input; with 1 with what the float network has.
WANTED = 0.5
COARSE = np.linspace(1.1, 0.4, 15, dtype=np.float32)  # ratios of the whole range
FINE = np.asarray([1.0, 0.94, 0.97, 1.03, 1.06], np.float32)  # of each end, around the coarse grid's best


def best_ranges(spec: QuantSpec | None, moments: Moments, layer: Layer, settings: None) -> Layer:
    """The layer with those of the compared ranges that give the least error of its output.

    Both ends of a range move, and zero points with them, as integers. For a symmetric range, and for weights
    with decided integers, only the scale moves. If no range is better, the present one stays.
    """
    del settings
    if spec is None or layer.site_qparams is None:
        return layer
    wanted = (1 - WANTED) * (moments.xx @ layer.weight)
    wanted += WANTED * (moments.xt - jnp.outer(moments.x, layer.bias))
    compare = partial(_best, spec, OutputError(moments.xx, wanted, layer.weight))
    coarse = jnp.concatenate([jnp.ones(1), COARSE])
    found = compare(layer.site_qparams, Ratios(coarse, coarse))
    low, high = (end.ravel() for end in jnp.meshgrid(FINE, FINE, indexing="ij"))
    # The range as it is comes first in either grid, and the first of equals counts.
    return layer._replace(site_qparams=compare(found, Ratios(low, high)))


class OutputError(NamedTuple):
    """The error of a layer's output.

    For output column w it is w' xx w - 2 w' wanted, up to a constant that no range changes.
    """

    xx: Array  # [in, in]
    wanted: Array  # [in, out]
    weight: Array  # [in, out]


class Ratios(NamedTuple):
    """What multiplies the ends of a range: numbers, [P] of candidates, or one for each channel."""

    low: Array
    high: Array


def _best(spec: QuantSpec, output: OutputError, site_qparams: SiteQParams, ratios: Ratios) -> SiteQParams:
    """For each channel the best of the ranges whose ends are the present ones times `ratios`."""

    def error(ratios: Ratios) -> Array:
        rounded = fake_quant_weight(spec, with_ends(spec, site_qparams, ratios), output.weight)
        errors = ((output.xx @ rounded - 2 * output.wanted) * rounded).sum(0, keepdims=True)
        return errors if site_qparams.scale.size > 1 else errors.sum(keepdims=True)

    best = jax.lax.map(error, ratios).argmin(0)  # [1, out or 1]
    return with_ends(spec, site_qparams, Ratios(ratios.low[best], ratios.high[best]))


def with_ends(spec: QuantSpec, site_qparams: SiteQParams, ratios: Ratios) -> SiteQParams:
    """A quantizer whose range ends at `ratios` times its present ends. Zero stays exact.

    If the zero point is fixed, only the scale moves, by the mean of both.
    """
    low, high = ratios
    if spec.signed or spec.codes:
        return site_qparams._replace(scale=site_qparams.scale * (low + high) / 2)
    qmin, qmax = int_range(spec.signed, site_qparams.bits)
    below, above = site_qparams.zero_point - qmin, qmax - site_qparams.zero_point  # steps to either end
    steps = (low * below + high * above) * (1.0 / (qmax - qmin))
    zero_point = jnp.clip(qmin + jnp.round(low * below / steps), qmin, qmax)
    return site_qparams._replace(scale=site_qparams.scale * steps, zero_point=zero_point)


OWN_OUTPUT = LayerLink(
    "own_output",
    "gives each output channel of a layer the range with the least error of what the channel gives",
    best_ranges,
    not_after=NotAfter(
        lambda earlier: earlier.rounds, "would change the ranges that weights have been rounded to"
    ),
)
