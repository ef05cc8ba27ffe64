"""The uniform quantizer: equal steps, affine or symmetric."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import jax.numpy as jnp

from evolq_jax.quant.qparams import SiteQParams
from evolq_jax.quant.quantizers.base import EPS, Quantizer, Range, Use, power_of_two
from evolq_jax.typing import Array

if TYPE_CHECKING:
    from evolq_jax.quant.spec import QuantSpec


def int_range(signed: bool, bits: Array) -> tuple[Array, Array]:
    """`(qmin, qmax)` of `uint b` or `int b`, exactly, in the shape of `bits`."""
    if signed:
        half = power_of_two(bits - 1)
        return -half, half - 1
    return jnp.zeros_like(bits), power_of_two(bits) - 1


def range_qparams(spec: QuantSpec, bits: Array, bounds: Range) -> SiteQParams:
    """Affine (`uint`) or symmetric (`int`) scale and zero point of a range, which is widened to hold zero.

    The reciprocal is what XLA makes of a division by a constant, so that ranges found with traced bits are
    those found when bits were constants.
    """
    low, high = jnp.minimum(bounds[0], 0.0), jnp.maximum(bounds[1], 0.0)
    qmin, qmax = int_range(spec.signed, bits)
    if spec.signed:
        scale = jnp.maximum(jnp.maximum(-low, high) * (1.0 / ((qmax - qmin) / 2)), EPS)
        return SiteQParams(scale, jnp.zeros_like(scale), bits)
    scale = jnp.maximum((high - low) * (1.0 / (qmax - qmin)), EPS)
    return SiteQParams(scale, jnp.clip(qmin - jnp.round(low / scale), qmin, qmax), bits)


@dataclass(frozen=True)
class Uniform(Quantizer):
    """`clip(round(x / scale + zero_point), qmin, qmax)`, ties to even, of `uint` or (signed) `int`."""

    name: str = "uniform"
    does: str = "rounds to equal steps"
    integer: str = "multiplies codes, and takes zero points off: those of activations fold into a bias"
    uses: tuple[Use, ...] = ("weight", "activation", "softmax", "gelu")
    equal_steps: bool = True

    def encode(self, spec: QuantSpec, site_qparams: SiteQParams, x: Array) -> Array:
        """Integers of the type; what lies outside its range is clipped."""
        qmin, qmax = int_range(spec.signed, site_qparams.bits)
        return jnp.clip(jnp.round(x / site_qparams.scale + site_qparams.zero_point), qmin, qmax)

    def decode(self, spec: QuantSpec, site_qparams: SiteQParams, codes: Array) -> Array:
        """`(codes - zero_point) * scale`."""
        del spec
        return (codes - site_qparams.zero_point) * site_qparams.scale

    def code_range(self, spec: QuantSpec, bits: Array) -> tuple[Array, Array]:
        """`(qmin, qmax)` of the type."""
        return int_range(spec.signed, bits)

    def gradient(
        self, spec: QuantSpec, site_qparams: SiteQParams, x: Array, cotangent: Array
    ) -> tuple[SiteQParams, Array]:
        """LSQ's (Esser et al. 2020, equation 3), with a zero point.

        With v = x / s + z and q = clip(round(v)): the gradient passes to x where qmin <= v <= qmax; that of s
        is q - z - x / s there, and q - z outside. z and the bits get none.
        """
        scale, zero_point, bits = site_qparams
        (qmin, qmax), ratio = int_range(spec.signed, bits), x / scale
        inside = (ratio + zero_point >= qmin) & (ratio + zero_point <= qmax)
        level = self.encode(spec, site_qparams, x) - zero_point
        slope = jnp.where(inside, level - ratio, level)
        to_site = site_qparams._replace(
            scale=_sum_to(scale.shape, cotangent * slope),
            zero_point=jnp.zeros_like(zero_point),
            bits=jnp.zeros_like(bits),
        )
        return to_site, jnp.where(inside, cotangent, 0.0)


def _sum_to(shape: tuple[int, ...], x: Array) -> Array:
    """The transpose of broadcasting `shape` to that of `x`."""
    missing = x.ndim - len(shape)
    shared = [i + missing for i, n in enumerate(shape) if n == 1 and x.shape[i + missing] > 1]
    axes = (*range(missing), *shared)
    return x.sum(axes, keepdims=True).reshape(shape)


UNIFORM = Uniform()
