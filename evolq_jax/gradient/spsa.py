"""Gradients without a backward pass: simultaneous perturbation (SPSA)."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from evolq_jax.gradient.config import BaselineConfig
from evolq_jax.gradient.theta import Theta
from evolq_jax.typing import Array


def spsa(
    loss: Callable[[Theta], Array], theta: Theta, key: Array, config: BaselineConfig
) -> tuple[Array, Theta]:
    """The mean loss [] of the points tried, and an estimate of the gradient (Spall 1992).

    A sample moves all coordinates at once, each by the radius and a random sign, there and back. The
    difference of the two losses gives the slope along the signs. Samples are averaged.

    Args:
      loss: the function to differentiate, to a scalar.
      theta: where.
      key: PRNG key; consumed.
      config: radius and number of samples.
    """

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
