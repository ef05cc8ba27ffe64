"""The power-of-two quantizer for softmax outputs (FQ-ViT, Lin et al., 2111.13824, section 4.2)."""

import jax.numpy as jnp

from evolq_jax.quant.spec import QuantSpec
from evolq_jax.typing import Array


def power_of_two(exponent: Array) -> Array:
    """`2 ** exponent` of integers in float32, exactly (`exp2` is a few ulp off on CPU)."""
    return jnp.ldexp(jnp.float32(1.0), exponent.astype(jnp.int32))


def log2_quantize(spec: QuantSpec, x: Array) -> Array:
    """Exponents `round(-log2 x)`, as float32, for `x` in (0, 1]; unclipped above (zero is +inf)."""
    del spec
    return jnp.maximum(jnp.round(-jnp.log2(x)), 0.0)


def log2_dequantize(spec: QuantSpec, exponent: Array) -> Array:
    """`2 ** -exponent`; exponents of 2**bits and more stand for zero."""
    limit = 2**spec.bits
    return jnp.where(exponent < limit, power_of_two(-jnp.minimum(exponent, limit)), 0.0)


def log2_fake_quant(spec: QuantSpec, x: Array) -> Array:
    """`x` rounded to a power of two, or to zero where the exponent does not fit into `bits`."""
    return log2_dequantize(spec, log2_quantize(spec, x))
