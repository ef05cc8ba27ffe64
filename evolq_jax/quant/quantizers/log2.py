"""Logarithmic quantizers for the outputs of softmax and GELU.

`log2`: powers of two (FQ-ViT, Lin et al., 2111.13824, section 4.2), multiplied as shifts. `log`: powers
of a base that calibration chooses (as AdaLog does, Wu et al., 2407.12951), multiplied as a shift and one of
a few constants, or by a table of at most 2**bits fixed-point values; `log_sqrt2` has the base sqrt(2) (of
RepQ-ViT, Li et al., 2212.08254), one of those that `log` chooses from: a shift, and one constant for odd
exponents. `shifted_log`: for GELU, whose values are lifted above zero first; integers execute it as `log`,
and what was added folds into the next layer's bias; `shifted_log2` and `shifted_log_sqrt2` have these bases.
"""

import jax.numpy as jnp

from evolq_jax.quant.qparams import SiteQParams
from evolq_jax.quant.quantizers.powers import power_of_two
from evolq_jax.quant.spec import QuantSpec
from evolq_jax.typing import Array

GELU_DEPTH = 0.17  # GELU is nowhere below -0.16997


def log2_quantize(x: Array) -> Array:
    """Exponents `round(-log2 x)`, as float32, for `x` in (0, 1]; unclipped above (zero is +inf)."""
    return jnp.maximum(jnp.round(-jnp.log2(x)), 0.0)


def log2_dequantize(bits: Array, exponent: Array) -> Array:
    """`2 ** -exponent`; exponents of 2**bits and more stand for zero."""
    limit = power_of_two(bits)
    return jnp.where(exponent < limit, power_of_two(-jnp.minimum(exponent, limit)), 0.0)


def log2_fake_quant(spec: QuantSpec, site_qparams: SiteQParams, x: Array) -> Array:
    """`x` rounded to a power of two, or to zero where the exponent does not fit into the bits."""
    del spec
    return log2_dequantize(site_qparams.bits, log2_quantize(x))


def log_fake_quant(spec: QuantSpec, site_qparams: SiteQParams, x: Array) -> Array:
    """`x` in (0, 1] rounded to `2 ** (-scale * q)`; the highest of the 2**bits codes stands for zero."""
    del spec
    return _round_exponent(site_qparams.bits, site_qparams.scale, x)


def log_sqrt2_fake_quant(spec: QuantSpec, site_qparams: SiteQParams, x: Array) -> Array:
    """`x` in (0, 1] rounded to `2 ** (-q / 2)`, as `log` with half an octave."""
    del spec
    return _round_exponent(site_qparams.bits, jnp.float32(0.5), x)


def _round_exponent(bits: Array, octaves: Array, x: Array) -> Array:
    q = jnp.maximum(jnp.round(-jnp.log2(x) / octaves), 0.0)
    zero = power_of_two(bits) - 1
    return jnp.where(q < zero, jnp.exp2(-octaves * jnp.minimum(q, zero)), 0.0)


def shifted_log_fake_quant(spec: QuantSpec, site_qparams: SiteQParams, x: Array) -> Array:
    """`x` rounded to `scale * 2 ** (-q / zero_point) - GELU_DEPTH`, as AdaLog has it for GELU.

    `scale` is the highest value plus `GELU_DEPTH`; `zero_point` counts codes per octave: 1 is log2, 2
    log-sqrt2. Since the shift is one constant, a product `x @ weight` is that of the powers, less
    `GELU_DEPTH` times the weight's column sums: a part of the bias.
    """
    del spec
    lifted, highest = jnp.maximum(x + GELU_DEPTH, 1e-6), power_of_two(site_qparams.bits) - 1
    q = jnp.round(-jnp.log2(lifted / site_qparams.scale) * site_qparams.zero_point)
    return site_qparams.scale * jnp.exp2(-jnp.clip(q, 0, highest) / site_qparams.zero_point) - GELU_DEPTH
