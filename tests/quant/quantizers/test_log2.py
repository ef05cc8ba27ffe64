import jax.numpy as jnp
import numpy as np
import pytest

from evolq_jax.quant.qparams import SiteQParams
from evolq_jax.quant.quantizers.log2 import (
    log2_dequantize,
    log2_fake_quant,
    log2_quantize,
    log_fake_quant,
    shifted_log_fake_quant,
)
from evolq_jax.quant.sites import fake_quant_activation
from evolq_jax.quant.spec import QuantSpec
from tests.numbers import numbers, width
from tests.quant import reference


def without(bits: int) -> SiteQParams:
    """The numbers of a quantizer that has no scale."""
    return numbers(np.ones(1), 0, bits)


@pytest.mark.parametrize("bits", range(2, 9))
def test_log2_is_the_formula(bits: int) -> None:
    x = reference.attention_like(np.random.default_rng(bits), 6, 40)
    x[0, :4] = 0.0, 1.0, 2.0**-12, 0.75  # zero, no tie, and a tie of nothing
    got = np.asarray(log2_fake_quant(QuantSpec(quantizer="log2"), without(bits), jnp.asarray(x)))
    want = np.array([[reference.log2_fake_quant(float(v), bits) for v in row] for row in x])
    np.testing.assert_array_equal(got, want)


def test_log2_exponents_that_do_not_fit_are_zero() -> None:
    x = jnp.array([1.0, 0.5, 0.26, 0.125, 0.0625, 0.0])
    assert log2_quantize(x).tolist() == [0, 1, 2, 3, 4, np.inf]
    assert log2_dequantize(width(2), log2_quantize(x)).tolist() == [1, 0.5, 0.25, 0.125, 0, 0]


def test_log_with_steps_of_an_octave_is_log2_but_for_its_code_for_zero() -> None:
    x = jnp.asarray(reference.attention_like(np.random.default_rng(0), 6, 40))
    octave = numbers(jnp.ones((1, 1)), 0, 4)
    got = np.asarray(log_fake_quant(QuantSpec(quantizer="log"), octave, x))
    want = np.asarray(log2_fake_quant(QuantSpec(quantizer="log2"), without(4), x))
    lowest = 2.0**-15  # log2 has 16 exponents and zero besides: one value more than 4 bits hold
    np.testing.assert_allclose(got, np.where(want <= lowest, 0.0, want), rtol=1e-6)


@pytest.mark.parametrize("bits", [3, 4, 6])
def test_log_has_no_more_values_than_codes_and_finer_steps_for_finer_qparams(bits: int) -> None:
    x = jnp.linspace(0.0, 1.0, 4001)
    spec, errors = QuantSpec(quantizer="log"), []
    for step in (1.0, 0.5):
        got = log_fake_quant(spec, numbers(jnp.full(1, step), 0, bits), x)
        assert len(np.unique(got)) <= 2**bits
        assert got[0] == 0
        large = x > 0.5
        errors.append(float(jnp.abs(got - x)[large].max()))
    assert errors[1] < 0.7 * errors[0]


@pytest.mark.parametrize(("bits", "codes"), [(3, 1), (4, 2), (6, 5)])
def test_shifted_log_is_the_formula_and_folds_into_a_bias(bits: int, codes: int) -> None:
    rng = np.random.default_rng(0)
    x = reference.gelu(4 * rng.standard_normal((5, 40)))
    site_qparams = numbers(jnp.full((1, 1), 9.17), codes, bits)
    got = np.asarray(shifted_log_fake_quant(QuantSpec(quantizer="shifted_log"), site_qparams, jnp.asarray(x)))
    want = [[reference.shifted_log_fake_quant(float(v), 9.17, codes, bits) for v in row] for row in x]
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
    powers, weight = got + 0.17, rng.standard_normal((40, 3))
    np.testing.assert_allclose(got @ weight, powers @ weight - 0.17 * weight.sum(0), atol=1e-4)
    exponents = -codes * np.log2(powers / 9.17)
    np.testing.assert_allclose(exponents, np.round(exponents), atol=1e-3)
    assert 0 <= exponents.round().min() <= exponents.round().max() < 2**bits


def test_half_an_octave_is_the_square_root_of_two() -> None:
    x = jnp.asarray(reference.attention_like(np.random.default_rng(0), 6, 40))
    spec = QuantSpec(quantizer="log_sqrt2")
    assert not spec.has_scale  # a search would take the base away from the square root
    got = np.asarray(fake_quant_activation(spec, without(4), x), np.float64)
    q = np.round(-np.log(np.asarray(x, np.float64)) / np.log(np.sqrt(2)))
    np.testing.assert_allclose(got, np.where(q < 15, np.sqrt(2) ** -q, 0), rtol=1e-5)
