"""Biases corrected."""

import numpy as np

from evolq_jax.calibration.links.bias import BIAS
from tests.calibration.layer_problem import LayerProblem


def test_the_bias_makes_the_mean_output_right() -> None:
    problem = LayerProblem()
    layer = problem.changed(BIAS, problem.layer)
    out = problem.x @ np.asarray(problem.rounded(layer).weight) + np.asarray(layer.bias)
    np.testing.assert_allclose(out.mean(0), problem.target.mean(0), atol=1e-4)
    np.testing.assert_array_equal(layer.weight, problem.layer.weight)
