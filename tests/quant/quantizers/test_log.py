import jax.numpy as jnp
import numpy as np
import pytest

from evolq_jax.quant.quantizers.base import fake_quant
from evolq_jax.quant.quantizers.log import LOG, LOG_SQRT2
from evolq_jax.quant.quantizers.log2 import LOG2
from evolq_jax.quant.spec import QuantSpec
from tests.numbers import numbers
from tests.quant import reference


def test_log_with_steps_of_an_octave_is_log2_but_for_its_code_for_zero() -> None:
    x = jnp.asarray(reference.attention_like(np.random.default_rng(0), 6, 40))
    octave = numbers(jnp.ones((1, 1)), 0, 4)
    got = np.asarray(LOG.fake_quant(QuantSpec(quantizer=LOG), octave, x))
    want = np.asarray(LOG2.fake_quant(QuantSpec(quantizer=LOG2), octave, x))
    lowest = 2.0**-15  # log2 has 16 exponents and zero besides: one value more than 4 bits hold
    np.testing.assert_allclose(got, np.where(want <= lowest, 0.0, want), rtol=1e-6)


@pytest.mark.parametrize("bits", [3, 4, 6])
def test_log_has_no_more_values_than_codes_and_finer_steps_for_finer_qparams(bits: int) -> None:
    x = jnp.linspace(0.0, 1.0, 4001)
    spec, errors = QuantSpec(quantizer=LOG), []
    for step in (1.0, 0.5):
        got = LOG.fake_quant(spec, numbers(jnp.full(1, step), 0, bits), x)
        assert len(np.unique(got)) <= 2**bits
        assert got[0] == 0
        large = x > 0.5
        errors.append(float(jnp.abs(got - x)[large].max()))
    assert errors[1] < 0.7 * errors[0]


def test_half_an_octave_is_the_square_root_of_two() -> None:
    x = jnp.asarray(reference.attention_like(np.random.default_rng(0), 6, 40))
    spec = QuantSpec(quantizer=LOG_SQRT2)
    assert not spec.has_scale  # a search would take the base away from the square root
    got = np.asarray(fake_quant(spec, numbers(np.ones(1), 0, 4), x), np.float64)
    q = np.round(-np.log(np.asarray(x, np.float64)) / np.log(np.sqrt(2)))
    np.testing.assert_allclose(got, np.where(q < 15, np.sqrt(2) ** -q, 0), rtol=1e-5)
