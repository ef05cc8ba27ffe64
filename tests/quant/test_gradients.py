from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evolq_jax.network.reading import quantized_reading
from evolq_jax.network.run import forward
from evolq_jax.quant.gradients import elements_sharing, lsq_scaled, with_gradient_of
from evolq_jax.quant.qparams import QParams, SiteQParams, blank_qparams
from evolq_jax.quant.quantizers.base import Quantizer, fake_quant
from evolq_jax.quant.quantizers.log2 import LOG2
from evolq_jax.quant.quantizers.twin import TWIN
from evolq_jax.quant.quantizers.uniform import UNIFORM
from evolq_jax.quant.scheme import QuantConfig, resolve
from evolq_jax.quant.sites import fake_quant_weights
from evolq_jax.quant.spec import QuantSpec
from evolq_jax.typing import Array, SiteInfo
from tests.numbers import numbers, width
from tests.quant import reference
from tests.search.setting import Setting

RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.standard_normal((5, 4, 3)), jnp.float32)
COTANGENT = jnp.asarray(RNG.standard_normal((5, 4, 3)), jnp.float32)


def by_formula(spec: QuantSpec, scale: np.ndarray, zero_point: np.ndarray) -> tuple[np.ndarray, ...]:
    """Equation 3 of LSQ at three bits, element by element, with a zero point."""
    qmin, qmax = reference.int_range(3, spec.signed)
    to_scale, to_x = np.zeros_like(scale), np.zeros(X.shape)
    for index in np.ndindex(*X.shape):
        at = tuple(0 if size == 1 else i for i, size in zip(index, scale.shape, strict=True))
        v = float(X[index]) / scale[at] + zero_point[at]
        if v < qmin or v > qmax:
            slope = (qmin if v < qmin else qmax) - zero_point[at]
        else:
            slope = np.round(v) - v
            to_x[index] = float(COTANGENT[index])
        to_scale[at] += float(COTANGENT[index]) * slope
    return to_scale, to_x


def test_decided_integers_are_linear_in_the_scale() -> None:
    spec = QuantSpec(per_channel=True, codes=True)
    integers = jnp.asarray(RNG.integers(0, 8, (4, 3)), jnp.float32)
    scale, zero_point = jnp.asarray([[0.2, 0.3, 0.4]]), jnp.full((1, 3), 3.0)

    def weighted(scale: Array) -> Array:
        qparams = {"weight": SiteQParams(scale, zero_point, width(3, 2))}
        params = fake_quant_weights((("weight", spec),), {"weight": integers}, qparams)
        return (COTANGENT[0] * params["weight"]).sum()

    want = (np.asarray(COTANGENT[0]) * (np.asarray(integers) - 3)).sum(0, keepdims=True)
    np.testing.assert_allclose(jax.grad(weighted)(scale), want, rtol=1e-5)
    np.testing.assert_allclose(weighted(scale), (want * np.asarray(scale)).sum(), rtol=1e-5)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 3), (5, 1, 3)], ids=["tensor", "channel", "stacked"])
@pytest.mark.parametrize("signed", [False, True])
def test_gradients_are_lsq_s(shape: tuple[int, ...], signed: bool) -> None:
    spec = QuantSpec(signed=signed)
    scale = np.broadcast_to(np.array([0.21, 0.33, 0.4], np.float32)[: shape[-1]], shape).copy()
    zero_point = np.full(shape, 0.0 if signed else 3.0, np.float32)
    site_qparams = numbers(scale, zero_point, 3, stacked=shape[0] > 1)
    value, pull = jax.vjp(partial(fake_quant, spec), site_qparams, X)
    np.testing.assert_array_equal(
        value, UNIFORM.decode(spec, site_qparams, UNIFORM.encode(spec, site_qparams, X))
    )
    to_qparams, to_x = pull(COTANGENT)
    want_scale, want_x = by_formula(spec, scale, zero_point)
    np.testing.assert_allclose(to_qparams.scale, want_scale, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(to_x, want_x, rtol=1e-6)
    assert 0 < (want_x == 0).mean() < 0.5  # some are clipped
    np.testing.assert_array_equal(to_qparams.zero_point, 0.0)
    np.testing.assert_array_equal(to_qparams.bits, 0.0)


def test_where_all_is_clipped_the_gradient_is_the_derivative() -> None:
    """There q does not depend on the scale, so that no gradient is made up."""
    spec, x = QuantSpec(), jnp.full((1, 8), 9.0)

    def value(scale: Array) -> Array:
        return jnp.sum(fake_quant(spec, SiteQParams(scale, jnp.zeros((1, 1)), width(2, 2)), x))

    scale, step = jnp.full((1, 1), 0.5), 1e-2
    difference = (value(scale + step) - value(scale - step)) / (2 * step)
    np.testing.assert_allclose(jax.grad(value)(scale)[0, 0], difference, rtol=1e-3)


def test_the_factor_is_the_paper_s() -> None:
    """Of elements counted for one image, and block by block where blocks differ in bits."""
    sites = {
        "a/weight": SiteInfo((20, 5), 2, True),
        "by_channel/weight": SiteInfo((20, 5), None, True),
        "act": SiteInfo((1, 10, 10), None, False),
    }
    specs = (
        ("a/weight", QuantSpec()),
        ("by_channel/weight", QuantSpec(signed=True, per_channel=True)),
        ("act", QuantSpec()),
    )
    sharing = elements_sharing(specs, sites)
    assert sharing == (("a/weight", 100), ("by_channel/weight", 20), ("act", 100))
    qparams = {
        "a/weight": numbers(np.ones((2, 1, 1)), 0, 4, stacked=True)._replace(
            bits=jnp.asarray([[[4.0]], [[2.0]]])
        ),
        "by_channel/weight": numbers(np.ones((1, 5)), 0, 4),
        "act": numbers(np.ones((1, 1, 1)), 0, 8),
    }
    scaled, pull = jax.vjp(partial(lsq_scaled, specs, sharing[:2]), qparams)
    jax.tree.map(np.testing.assert_array_equal, scaled, qparams)
    gradient = pull(jax.tree.map(jnp.ones_like, qparams))[0]
    want = 1 / np.sqrt([100 * 15, 100 * 3])
    np.testing.assert_allclose(gradient["a/weight"].scale.ravel(), want, rtol=1e-6)
    np.testing.assert_allclose(gradient["by_channel/weight"].scale, 1 / np.sqrt(20 * 7), rtol=1e-6)
    assert (gradient["act"].scale == 1).all()


@pytest.mark.parametrize("quantizer", [LOG2, TWIN])
def test_other_quantizers_pass_gradients_straight_to_the_values(quantizer: Quantizer) -> None:
    spec, site_qparams, x = (
        QuantSpec(quantizer=quantizer),
        numbers(0.05 * np.ones((1, 1, 1)), 2, 4),
        jnp.abs(X),
    )
    to_qparams, to_x = jax.vjp(partial(fake_quant, spec), site_qparams, x)[1](COTANGENT)
    np.testing.assert_array_equal(to_x, COTANGENT)
    assert all((leaf == 0).all() for leaf in to_qparams)


def test_an_exact_value_has_the_gradient_of_a_smooth_one() -> None:
    def value(x: Array) -> Array:
        return with_gradient_of(x**2, jnp.round(x**2))

    out, pull = jax.vjp(value, X)
    np.testing.assert_array_equal(out, jnp.round(X**2))
    np.testing.assert_allclose(pull(COTANGENT)[0], 2 * X * COTANGENT, rtol=1e-6)


@pytest.mark.parametrize(
    "quant",
    [
        QuantConfig("matmul", weight_bits=3, bias_correction=True, softmax_quantizer="log2"),
        QuantConfig("fully_quantized", weight_bits=3, integer_layer_norm=True),
    ],
    ids=["matmul", "integer"],
)
def test_gradients_reach_the_scales_of_a_network(setting: Setting, quant: QuantConfig) -> None:
    from evolq_jax.calibration.calibrate import calibrate

    tiny = setting.tiny
    specs, bits = resolve(replace(quant, quantize_image=False), tiny.sites)
    given, start = (tiny.parts, specs, tiny.params, [tiny.images]), blank_qparams(specs, bits, tiny.sites)
    qparams = calibrate(*given, sites=tiny.sites, qparams=start, chunk=12).qparams

    @jax.jit
    def logits(qparams: QParams) -> Array:
        params = fake_quant_weights(specs, tiny.params, qparams)
        return forward(tiny.parts, quantized_reading(specs, params, qparams), tiny.images)

    gradient = jax.jit(jax.grad(lambda qparams: jnp.sum(logits(qparams) ** 2)))(qparams)
    for name, site_qparams in gradient.items():
        assert np.isfinite(site_qparams.scale).all(), name
    moving = [name for name, site_qparams in gradient.items() if np.abs(site_qparams.scale).max() > 0]
    assert "blocks/attn/qkv/weight" in moving
    assert "blocks/norm1" in moving
    assert len(moving) > 0.8 * len(gradient)
