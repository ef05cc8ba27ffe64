"""Quantizers' numbers for tests."""

import jax.numpy as jnp
import numpy as np

from evolq_jax.quant.qparams import SiteQParams
from evolq_jax.typing import Array

Leaf = Array | np.ndarray | float


def numbers(scale: Leaf, zero_point: Leaf, bits: int, *, stacked: bool = False) -> SiteQParams:
    """One site's; the zero point is of the scale's shape or one for all. `stacked`: with an L axis."""
    scale = jnp.asarray(scale, jnp.float32)
    lead = int(stacked)
    shape = (*scale.shape[:lead], *[1] * (scale.ndim - lead))
    return SiteQParams(
        scale,
        jnp.broadcast_to(jnp.asarray(zero_point, jnp.float32), scale.shape),
        jnp.full(shape, bits, jnp.float32),
    )


def width(bits: int, ndim: int = 1) -> Array:
    """The leaf that says how many bits a tensor of so many axes has."""
    return jnp.full((1,) * ndim, bits, jnp.float32)
