"""Weights corrected in closed form."""

import jax.numpy as jnp
import numpy as np

from evolq_jax.calibration.links.bias import matching_bias
from evolq_jax.calibration.links.ridge import ridge
from tests.calibration.layer_problem import IN, TOKENS, LayerProblem


def test_ridge_without_damping_is_least_squares() -> None:
    problem = LayerProblem()
    x = np.concatenate([problem.x, np.ones((TOKENS, 1))], axis=1)
    want = np.linalg.lstsq(x, problem.target, rcond=None)[0]
    got = ridge(problem.moments, problem.layer.weight, 1e-6)
    np.testing.assert_allclose(got, want[:-1], atol=2e-3)
    np.testing.assert_allclose(matching_bias(problem.moments, got), want[-1], atol=1e-2)


def test_ridge_holds_on_to_the_weight_as_told() -> None:
    problem = LayerProblem(noise=0.5)
    moved = [
        float(jnp.abs(ridge(problem.moments, problem.layer.weight, d) - problem.layer.weight).max())
        for d in (1e-3, 1.0, 1e4)
    ]
    assert moved[0] > 2 * moved[1] > 0
    assert moved[2] < 1e-3


def test_an_outlier_channel_does_not_set_the_damping_of_the_others() -> None:
    problem = LayerProblem(noise=0.5)
    scale = np.ones(IN)
    scale[3] = 1000.0
    big, moments = jnp.asarray(scale), problem.moments
    scaled = moments._replace(
        x=moments.x * big, xx=moments.xx * big * big[:, None], xt=moments.xt * big[:, None]
    )
    plain = ridge(moments, problem.layer.weight, 0.1)
    got = ridge(scaled, problem.layer.weight / big[:, None], 0.1) * big[:, None]
    np.testing.assert_allclose(got, plain, atol=0.02)
