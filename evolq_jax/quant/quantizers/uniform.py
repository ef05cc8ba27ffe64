"""The uniform quantizer, and the released code's weight correction (DESIGN of FQ-ViT and Evol-Q)."""

import jax.numpy as jnp

from evolq_jax.quant.qparams import SiteQParams
from evolq_jax.quant.quantizers.powers import power_of_two
from evolq_jax.quant.spec import QuantSpec
from evolq_jax.typing import Array


def int_range(signed: bool, bits: Array) -> tuple[Array, Array]:
    """`(qmin, qmax)` of `uint b` or `int b`, exactly, in the shape of `bits`."""
    if signed:
        half = power_of_two(bits - 1)
        return -half, half - 1
    return jnp.zeros_like(bits), power_of_two(bits) - 1


def quantize(spec: QuantSpec, site_qparams: SiteQParams, x: Array) -> Array:
    """Integers, as float32: `clip(round(x / scale + zero_point), qmin, qmax)`; ties to even."""
    qmin, qmax = int_range(spec.signed, site_qparams.bits)
    return jnp.clip(jnp.round(x / site_qparams.scale + site_qparams.zero_point), qmin, qmax)


def dequantize(site_qparams: SiteQParams, q: Array) -> Array:
    """`(q - zero_point) * scale`."""
    return (q - site_qparams.zero_point) * site_qparams.scale


def fake_quant(spec: QuantSpec, site_qparams: SiteQParams, x: Array) -> Array:
    """What integer arithmetic would see of `x`; `site_qparams` broadcast against `x`."""
    return dequantize(site_qparams, quantize(spec, site_qparams, x))


def match_channel_statistics(weight: Array, quantized: Array, axes: tuple[int, ...]) -> Array:
    """The released code's "bias correction": channels shifted and stretched, reducing over `axes`.

    Afterwards each channel has the float channel's mean and (unbiased) standard deviation. The result
    is off the integer grid: an integer export folds it into a scale and a bias per channel.
    """
    mean, mean_q = weight.mean(axes, keepdims=True), quantized.mean(axes, keepdims=True)
    std, std_q = (w.std(axes, ddof=1, keepdims=True) for w in (weight, quantized))
    return (quantized - mean_q) * (std / (std_q + 1e-8)) + mean
