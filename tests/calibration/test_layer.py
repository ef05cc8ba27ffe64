"""What holds for every link that changes a layer."""

import jax
import numpy as np
import pytest

from evolq_jax.calibration import patches
from evolq_jax.calibration.layer import Layer, moments_of, of_output
from evolq_jax.calibration.link import LayerLink
from evolq_jax.calibration.links.bias import BIAS
from evolq_jax.calibration.links.gptq import GPTQ
from evolq_jax.calibration.links.ridge import RIDGE
from tests.calibration.layer_problem import LayerProblem

LINKS = {"ridge": RIDGE, "gptq": GPTQ, "bias": BIAS}


@pytest.mark.parametrize("link", LINKS.values(), ids=LINKS)
def test_a_float_weight_may_be_corrected_but_is_not_rounded(link: LayerLink) -> None:
    problem = LayerProblem()
    layer = problem.changed(link, problem.layer._replace(site_qparams=None))
    assert layer.site_qparams is None
    changed = not np.array_equal(layer.weight, problem.layer.weight)
    assert changed == (link is RIDGE)
    assert problem.error(layer) <= problem.error(problem.layer) + 1e-6


@pytest.mark.parametrize("link", [RIDGE, GPTQ], ids=["ridge", "gptq"])
def test_moments_without_a_solution_leave_the_weight_as_it_is(link: LayerLink) -> None:
    problem = LayerProblem()
    problem.moments = problem.moments._replace(xx=-problem.moments.xx)  # as far from definite as can be
    layer = problem.changed(link, problem.layer)
    want = problem.layer.weight if link is RIDGE else problem.rounded(problem.layer).weight
    np.testing.assert_array_equal(layer.weight, want)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(layer))


@pytest.mark.parametrize("groups", [1, 2])
def test_a_layer_applied_to_sums_is_that_applied_to_tokens(groups: int) -> None:
    keys = iter(jax.random.split(jax.random.key(0), 5))
    shape = (groups, 50, 6) if groups > 1 else (50, 6)
    x, exact = (jax.random.normal(next(keys), shape) for _ in range(2))
    weight, bias = jax.random.normal(next(keys), (1, 1, 6, 8)), jax.random.normal(next(keys), (8,))
    token = jax.random.uniform(next(keys), (50, 1))
    of_tokens = moments_of(token, x, patches.product(exact, weight) + bias)
    of_sums = of_output(moments_of(token, x, exact), Layer(weight, bias, None))
    for one, other in zip(of_sums, of_tokens, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)
