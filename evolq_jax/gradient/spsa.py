"""Gradients from values alone: simultaneous perturbation (SPSA; Spall 1992)."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from evolq_jax.gradient.config import BaselineConfig
from evolq_jax.gradient.theta import Theta
from evolq_jax.typing import Array


def spsa(
    loss: Callable[[Theta], Array], theta: Theta, key: Array, config: BaselineConfig
) -> tuple[Array, Theta]:
    """Mean loss of the points tried, and the gradient from differences along random signs (Spall 1992)."""

    def one(key: Array) -> tuple[Array, Theta]:
        keys = dict(zip(theta, jax.random.split(key, len(theta)), strict=True))
        signs = {
            site: jax.random.rademacher(keys[site], leaf.shape, leaf.dtype) for site, leaf in theta.items()
        }
        ends = [
            loss({site: theta[site] + side * config.spsa_radius * signs[site] for site in theta})
            for side in (1.0, -1.0)
        ]
        slope = (ends[0] - ends[1]) / (2.0 * config.spsa_radius)
        return (ends[0] + ends[1]) / 2.0, {site: slope * sign for site, sign in signs.items()}

    values, gradients = jax.lax.map(one, jax.random.split(key, config.spsa_samples))
    return jnp.mean(values), jax.tree.map(lambda leaf: leaf.mean(0), gradients)
