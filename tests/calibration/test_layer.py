import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evolq_jax.calibration.layer import Layer, Moments
from evolq_jax.calibration.link import LayerLink
from evolq_jax.calibration.links.bias import BIAS, matching_bias
from evolq_jax.calibration.links.gptq import GPTQ, SHRINKS, error_feedback
from evolq_jax.calibration.links.ranges import weight_qparams
from evolq_jax.calibration.links.ridge import RIDGE, RidgeConfig, ridge
from evolq_jax.quant.quantizers.base import fake_quant
from evolq_jax.quant.spec import QuantSpec
from tests.numbers import width

TOKENS, IN, OUT = 400, 24, 10
SPEC = QuantSpec(per_channel=True, observer="omse")
LINKS = {"ridge": RIDGE, "gptq": GPTQ, "bias": BIAS}


class Problem:
    """A layer whose input is correlated and noisy, with an output wanted that the clean input gives."""

    def __init__(self, noise: float = 0.1, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        clean = rng.standard_normal((TOKENS, 6)) @ rng.standard_normal((6, IN)) + rng.standard_normal(IN)
        self.weight = rng.standard_normal((IN, OUT)) / np.sqrt(IN)
        self.bias = rng.standard_normal(OUT)
        self.x = clean + noise * rng.standard_normal(clean.shape)
        self.target = clean @ self.weight + self.bias
        sums = len(self.x), self.x.sum(0), self.target.sum(0), self.x.T @ self.x, self.x.T @ self.target
        self.moments = Moments(*(jnp.asarray(s, jnp.float32) for s in sums))
        weight = jnp.asarray(self.weight, jnp.float32)
        self.layer = Layer(
            weight, jnp.asarray(self.bias, jnp.float32), weight_qparams(SPEC, width(3, 2), weight)
        )

    def error(self, layer: Layer) -> float:
        """Of the layer's output with its weight as it is."""
        return float(((self.x @ np.asarray(layer.weight) + np.asarray(layer.bias) - self.target) ** 2).mean())

    def changed(self, link: LayerLink, layer: Layer, damping: float = 0.01) -> Layer:
        """The layer as a link leaves it."""
        spec = SPEC if layer.site_qparams is not None else None
        settings = RidgeConfig(damping) if link is RIDGE else link.settings
        return link.function(spec, self.moments, layer, settings)

    def rounded(self, layer: Layer) -> Layer:
        assert layer.site_qparams is not None
        return layer._replace(weight=fake_quant(SPEC, layer.site_qparams, layer.weight))


def test_ridge_without_damping_is_least_squares() -> None:
    problem = Problem()
    x = np.concatenate([problem.x, np.ones((TOKENS, 1))], axis=1)
    want = np.linalg.lstsq(x, problem.target, rcond=None)[0]
    got = ridge(problem.moments, problem.layer.weight, 1e-6)
    np.testing.assert_allclose(got, want[:-1], atol=2e-3)
    np.testing.assert_allclose(matching_bias(problem.moments, got), want[-1], atol=1e-2)


def test_ridge_holds_on_to_the_weight_as_told() -> None:
    problem = Problem(noise=0.5)
    moved = [
        float(jnp.abs(ridge(problem.moments, problem.layer.weight, d) - problem.layer.weight).max())
        for d in (1e-3, 1.0, 1e4)
    ]
    assert moved[0] > 2 * moved[1] > 0
    assert moved[2] < 1e-3


def test_an_outlier_channel_does_not_set_the_damping_of_the_others() -> None:
    problem = Problem(noise=0.5)
    scale = np.ones(IN)
    scale[3] = 1000.0
    big, moments = jnp.asarray(scale), problem.moments
    scaled = moments._replace(
        x=moments.x * big, xx=moments.xx * big * big[:, None], xt=moments.xt * big[:, None]
    )
    plain = ridge(moments, problem.layer.weight, 0.1)
    got = ridge(scaled, problem.layer.weight / big[:, None], 0.1) * big[:, None]
    np.testing.assert_allclose(got, plain, atol=0.02)


def test_the_bias_makes_the_mean_output_right() -> None:
    problem = Problem()
    layer = problem.changed(BIAS, problem.layer)
    out = problem.x @ np.asarray(problem.rounded(layer).weight) + np.asarray(layer.bias)
    np.testing.assert_allclose(out.mean(0), problem.target.mean(0), atol=1e-4)
    np.testing.assert_array_equal(layer.weight, problem.layer.weight)


def test_error_feedback_leaves_the_weight_on_its_grid_and_lowers_the_error() -> None:
    problem = Problem(noise=0.02)
    layer = problem.changed(GPTQ, problem.layer)
    np.testing.assert_allclose(problem.rounded(layer).weight, layer.weight, atol=1e-6)
    nearest, feedback = (problem.changed(BIAS, one) for one in (problem.rounded(problem.layer), layer))
    assert problem.error(feedback) < problem.error(nearest) / 3


def test_error_feedback_of_uncorrelated_inputs_is_rounding_to_nearest() -> None:
    problem = Problem()
    moments = problem.moments._replace(x=jnp.zeros(IN), xx=jnp.eye(IN) * TOKENS)
    start = problem.layer.site_qparams
    assert start is not None
    weight, site_qparams = error_feedback(SPEC, moments, problem.layer.weight, start)
    np.testing.assert_allclose(weight, fake_quant(SPEC, site_qparams, problem.layer.weight), atol=1e-5)
    clipped = site_qparams.scale / start.scale
    assert set(np.round(np.asarray(clipped).ravel(), 2)) <= {round(s, 2) for s in SHRINKS}


def test_ridge_then_error_feedback_beats_either() -> None:
    problem = Problem(noise=0.5)

    def run(*links: LayerLink) -> float:
        layer = problem.layer
        for link in (*links, BIAS):
            layer = problem.changed(link, layer, 0.1)
        return problem.error(problem.rounded(layer))

    both = run(RIDGE, GPTQ)
    assert both < run(RIDGE)
    assert both < run(GPTQ)


@pytest.mark.parametrize("link", LINKS.values(), ids=LINKS)
def test_a_float_weight_may_be_corrected_but_is_not_rounded(link: LayerLink) -> None:
    problem = Problem()
    layer = problem.changed(link, problem.layer._replace(site_qparams=None))
    assert layer.site_qparams is None
    changed = not np.array_equal(layer.weight, problem.layer.weight)
    assert changed == (link is RIDGE)
    assert problem.error(layer) <= problem.error(problem.layer) + 1e-6


@pytest.mark.parametrize("link", [RIDGE, GPTQ], ids=["ridge", "gptq"])
def test_moments_without_a_solution_leave_the_weight_as_it_is(link: LayerLink) -> None:
    problem = Problem()
    problem.moments = problem.moments._replace(xx=-problem.moments.xx)  # as far from definite as can be
    layer = problem.changed(link, problem.layer)
    want = problem.layer.weight if link is RIDGE else problem.rounded(problem.layer).weight
    np.testing.assert_array_equal(layer.weight, want)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(layer))
