"""Exact powers of two."""

import jax.numpy as jnp

from evolq_jax.typing import Array


def power_of_two(exponent: Array) -> Array:
    """`2 ** exponent` of integers in float32, exactly (`exp2` is a few ulp off on CPU)."""
    return jnp.ldexp(jnp.float32(1.0), exponent.astype(jnp.int32))
