"""Weights rounded with error feedback."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np

from evolq_jax.calibration.layer import Layer, Moments
from evolq_jax.calibration.link import LayerLink
from evolq_jax.calibration.links.bias import BIAS
from evolq_jax.calibration.links.gptq import BLOCK, GPTQ, SHRINKS, error_feedback
from evolq_jax.calibration.links.ridge import RIDGE
from evolq_jax.quant.observers.of_weight import weight_qparams
from evolq_jax.quant.qparams import SiteQParams
from evolq_jax.quant.quantizers.base import fake_quant
from tests.calibration.layer_problem import IN, SPEC, TOKENS, LayerProblem
from tests.numbers import width


def test_error_feedback_leaves_the_weight_on_its_grid_and_lowers_the_error() -> None:
    problem = LayerProblem(noise=0.02)
    layer = problem.changed(GPTQ, problem.layer)
    np.testing.assert_allclose(problem.rounded(layer).weight, layer.weight, atol=1e-6)
    nearest, feedback = (problem.changed(BIAS, one) for one in (problem.rounded(problem.layer), layer))
    assert problem.error(feedback) < problem.error(nearest) / 3


def test_error_feedback_of_uncorrelated_inputs_is_rounding_to_nearest() -> None:
    problem = LayerProblem()
    moments = problem.moments._replace(x=jnp.zeros(IN), xx=jnp.eye(IN) * TOKENS)
    start = problem.layer.site_qparams
    assert start is not None
    weight, site_qparams = error_feedback(SPEC, moments, problem.layer.weight, start)
    np.testing.assert_allclose(weight, fake_quant(SPEC, site_qparams, problem.layer.weight), atol=1e-5)
    clipped = site_qparams.scale / start.scale
    assert set(np.round(np.asarray(clipped).ravel(), 2)) <= {round(s, 2) for s in SHRINKS}


def by_hand(weight: np.ndarray, xx: np.ndarray, qparams: SiteQParams) -> tuple[np.ndarray, np.ndarray]:
    """Weight and scales by the paper's equations, one channel after the other, in float64."""
    scale, zero_point = (np.asarray(leaf, np.float64)[0] for leaf in qparams[:2])
    order = np.argsort(-np.diag(xx), stable=True)
    damped = (xx + np.diag(0.01 * np.diag(xx)))[order][:, order]
    upper = np.linalg.cholesky(np.linalg.inv(damped)).T
    found = []
    for shrink in SHRINKS:
        rows = weight[order].astype(np.float64)
        for i, row in enumerate(rows):
            code = np.clip(np.round(row / (shrink * scale) + zero_point), 0, 3)
            error = (row - (code - zero_point) * shrink * scale) / upper[i, i]
            rows[i] = (code - zero_point) * shrink * scale
            rows[i + 1 :] -= np.outer(upper[i, i + 1 :], error)
        difference = rows - weight[order]
        found.append((((damped @ difference) * difference).sum(0), rows[np.argsort(order)], shrink * scale))
    errors, rounded, scales = map(np.stack, zip(*found, strict=True))
    best = errors.argmin(0)
    each = np.arange(weight.shape[1])
    return rounded[best, :, each].T, scales[best, each]


def test_error_feedback_in_blocks_is_that_of_the_paper() -> None:
    rng, count, inside, outside = np.random.default_rng(5), 300, 70, 6  # several blocks
    x = rng.standard_normal((count, inside)) @ rng.standard_normal((inside, inside)) / 8
    weight = rng.standard_normal((inside, outside)).astype(np.float32)
    xx = x.T @ x
    assert inside > BLOCK
    zeros = jnp.zeros(inside), jnp.zeros(outside)
    sums = Moments(jnp.float32(count), *zeros, jnp.asarray(xx, jnp.float32), jnp.zeros(weight.shape))
    start = weight_qparams(SPEC, width(2, 2), jnp.asarray(weight))
    found, site_qparams = jax.jit(error_feedback, static_argnums=0)(SPEC, sums, weight, start)
    want, scale = by_hand(weight, xx, start)
    np.testing.assert_allclose(site_qparams.scale[0], scale, rtol=1e-6)
    np.testing.assert_allclose(found, want, atol=1e-5)


def test_ridge_then_error_feedback_beats_either() -> None:
    problem = LayerProblem(noise=0.5)

    def run(*links: LayerLink) -> float:
        layer = problem.layer
        for link in (*links, BIAS):
            layer = problem.changed(link, layer, 0.1)
        return problem.error(problem.rounded(layer))

    both = run(RIDGE, GPTQ)
    assert both < run(RIDGE)
    assert both < run(GPTQ)


def test_channels_that_share_a_scale_clip_it_alike() -> None:
    problem, shared = LayerProblem(noise=0.02), replace(SPEC, per_channel=False)
    start = weight_qparams(shared, width(3, 2), problem.layer.weight)
    assert start.scale.shape == (1, 1)
    weight, site_qparams = error_feedback(shared, problem.moments, problem.layer.weight, start)
    assert site_qparams.scale.shape == (1, 1)
    np.testing.assert_allclose(fake_quant(shared, site_qparams, weight), weight, atol=1e-6)
    layers = (
        Layer(w, problem.layer.bias, None) for w in (weight, fake_quant(shared, start, problem.layer.weight))
    )
    feedback, nearest = (problem.changed(BIAS, layer) for layer in layers)
    assert problem.error(feedback) < problem.error(nearest) / 2
