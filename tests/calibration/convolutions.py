"""Kernels and images to convolve."""

import jax.numpy as jnp
import numpy as np

from evolq_jax.typing import Array

KERNELS = [(1, 1), (3, 1), (3, 2), (3, 8)]  # size, groups of 8 channels


def kernel(size: int, groups: int, seed: int = 0) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal((size, size, 8 // groups, 16)) / np.sqrt(size * size * 8 / groups)
    return jnp.asarray(weight, jnp.float32), jnp.asarray(rng.standard_normal(16), jnp.float32)


def images(seed: int = 1) -> Array:
    """Neighbouring pixels and channels are alike, as in images [6, 7, 5, 8]."""
    rng = np.random.default_rng(seed)
    smooth = rng.standard_normal((6, 7, 5, 8)).cumsum(1).cumsum(2) @ rng.standard_normal((8, 8))
    return jnp.asarray(smooth / smooth.std(), jnp.float32)
