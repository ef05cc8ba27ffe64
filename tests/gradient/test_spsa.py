from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evolq_jax.gradient.spsa import spsa
from tests.gradient.setting import BASELINE


def test_spsa_estimates_the_gradient() -> None:
    """Of a linear function exactly along the signs, and on average the gradient itself."""
    slope = {"a": jnp.array([1.0, -2.0]), "b": jnp.array([[0.5]])}

    def loss(theta: dict[str, jax.Array]) -> jax.Array:
        return 7.0 + sum(jnp.sum(slope[site] * theta[site]) for site in slope)  # type: ignore[return-value]

    theta = jax.tree.map(jnp.zeros_like, slope)
    config = replace(BASELINE, gradient="spsa", spsa_samples=4000)
    value, gradient = jax.jit(lambda key: spsa(loss, theta, key, config))(jax.random.key(0))
    assert float(value) == pytest.approx(7.0, abs=1e-4)
    for site in slope:
        np.testing.assert_allclose(gradient[site], slope[site], atol=0.15)
