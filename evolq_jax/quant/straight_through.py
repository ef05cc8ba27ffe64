"""Fake quantization whose rounding lets gradients through: LSQ (Esser et al. 2020) with a zero point.

Values are exactly those of `quant`; only the gradients are made up.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp

from evolq_jax.quant.integer_ops import integer_softmax
from evolq_jax.quant.qparams import SiteQParams
from evolq_jax.quant.quantizers.uniform import (
    dequantize,
    fake_quant,
    int_range,
    match_channel_statistics,
    quantize,
)
from evolq_jax.quant.sites import (
    FloatSite,
    IntegerNormSite,
    QuantSite,
    SiteFactory,
    fake_quant_activation,
)
from evolq_jax.quant.spec import QuantSpec, Specs, scope
from evolq_jax.trees import flatten, unflatten
from evolq_jax.typing import Array, Params


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def lsq_fake_quant(spec: QuantSpec, site_qparams: SiteQParams, x: Array) -> Array:
    """`fake_quant` with LSQ's gradients (see `scale_gradient` for its factor).

    With v = x / s + z and q = clip(round(v)): the gradient passes to x where qmin <= v <= qmax; that of s is
    q - z - x / s there, and q - z outside (equation 3 of the paper, with a zero point). z and the bits get
    none.
    """
    return fake_quant(spec, site_qparams, x)


def _forward(spec: QuantSpec, site_qparams: SiteQParams, x: Array) -> tuple[Array, tuple[SiteQParams, Array]]:
    return fake_quant(spec, site_qparams, x), (site_qparams, x)


def _backward(
    spec: QuantSpec, saved: tuple[SiteQParams, Array], cotangent: Array
) -> tuple[SiteQParams, Array]:
    site_qparams, x = saved
    scale, zero_point, bits = site_qparams
    (qmin, qmax), ratio = int_range(spec.signed, bits), x / scale
    inside = (ratio + zero_point >= qmin) & (ratio + zero_point <= qmax)
    level = quantize(spec, site_qparams, x) - zero_point
    slope = jnp.where(inside, level - ratio, level)
    to_scale = _sum_to(scale.shape, cotangent * slope)
    to_site = SiteQParams(to_scale, jnp.zeros_like(zero_point), jnp.zeros_like(bits))
    return to_site, jnp.where(inside, cotangent, 0.0)


lsq_fake_quant.defvjp(_forward, _backward)


@jax.custom_vjp
def scale_gradient(x: Array, factor: Array) -> Array:
    """`x`, whose gradient is multiplied by `factor` (of its shape, or of size 1); `factor` gets none."""
    del factor
    return x


scale_gradient.defvjp(
    lambda x, factor: (x, factor), lambda factor, cotangent: (factor * cotangent, jnp.zeros_like(factor))
)


def _sum_to(shape: tuple[int, ...], x: Array) -> Array:
    """The transpose of broadcasting `shape` to that of `x`."""
    missing = x.ndim - len(shape)
    shared = [i + missing for i, n in enumerate(shape) if n == 1 and x.shape[i + missing] > 1]
    axes = (*range(missing), *shared)
    return x.sum(axes, keepdims=True).reshape(shape)


def lsq_factor(spec: QuantSpec, bits: Array, num_elements: int) -> Array:
    """1 / sqrt(elements that share the scale x qmax): section 2.2 of LSQ. Of the shape of `bits`."""
    return 1.0 / jnp.sqrt(num_elements * int_range(spec.signed, bits)[1])


def _lsq_scaled(spec: QuantSpec, site_qparams: SiteQParams, num_elements: int) -> SiteQParams:
    """The same numbers, but the scale's gradient has LSQ's factor."""
    factor = lsq_factor(spec, site_qparams.bits, num_elements)
    return site_qparams._replace(scale=scale_gradient(site_qparams.scale, factor))


@dataclass(frozen=True)
class StraightThroughSite(QuantSite):
    """The quantized reading with straight-through gradients; elements are counted for one image."""

    lsq_scaling: bool = True

    def __call__(self, name: str, x: Array) -> Array:
        """Returns `x` as integer arithmetic would see it."""
        spec = self.specs.get(name)
        if spec is None:
            return x
        site_qparams = self.qparams[name]
        if spec.quantizer != "uniform":  # steps and bases of the others are not learnt
            return _straight(x, fake_quant_activation(spec, site_qparams, x))
        if self.lsq_scaling:
            # The leading axis is the images', but of a table that all images share.
            site_qparams = _lsq_scaled(spec, site_qparams, max(1, x[0].size // site_qparams.scale.size))
        return lsq_fake_quant(spec, site_qparams, x)

    def layer_norm(self, name: str, source: str, x: Array, weight: Array, bias: Array, eps: float) -> Array:
        """Integer LayerNorm where the spec asks for it, with the gradient of the float one."""
        smooth = FloatSite().layer_norm(name, source, x, weight, bias, eps)
        integer = IntegerNormSite(self.specs, self.qparams).layer_norm(name, source, x, weight, bias, eps)
        return self(name, _straight(smooth, integer))

    def softmax(self, name: str, source: str, logits: Array) -> Array:
        """Log-int-softmax where the spec asks for it, with the gradient of the float one."""
        spec, smooth = self.specs.get(name), jax.nn.softmax(logits, axis=-1)
        if spec is None or not spec.integer_op or source not in self.specs:
            return self(name, smooth)
        integer = integer_softmax(self.qparams[name].bits, logits, self.qparams[source].scale)
        return _straight(smooth, integer)


def _straight(smooth: Array, exact: Array) -> Array:
    """The value of `exact` (to rounding) with the gradient of `smooth`."""
    return smooth + jax.lax.stop_gradient(exact - smooth)


def straight_through_sites(specs: Specs, lsq_scaling: bool = True) -> SiteFactory:
    """The site factory of the quantized network with straight-through gradients."""
    return lambda segment, qparams: StraightThroughSite(scope(specs, segment), qparams, lsq_scaling)


def straight_through_weights(
    specs: Specs, params: Params, qparams: Mapping[str, SiteQParams], lsq_scaling: bool = True
) -> Params:
    """`quant.sites.fake_quant_weights` with LSQ's gradients; those of decided integers are true."""
    leaves = flatten(params)
    for name, spec in specs:
        if name not in leaves:
            continue
        weight, site_qparams = leaves[name], qparams[name]
        if spec.codes:
            leaves[name] = dequantize(site_qparams, weight)
            continue
        if lsq_scaling:
            site_qparams = _lsq_scaled(spec, site_qparams, weight.size // site_qparams.scale.size)
        quantized: Array = lsq_fake_quant(spec, site_qparams, weight)  # pyright: ignore[reportAssignmentType]
        if spec.bias_correction:
            axes = tuple(axis for axis, size in enumerate(site_qparams.scale.shape[:-1]) if size == 1)
            quantized = match_channel_statistics(weight, quantized, axes)
        leaves[name] = quantized
    return unflatten(leaves)
