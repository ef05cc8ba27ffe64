import jax.numpy as jnp
import numpy as np
import pytest

from evolq_jax.quant.qparams import SiteQParams
from evolq_jax.quant.quantizers.log2 import LOG2
from evolq_jax.quant.spec import QuantSpec
from tests.numbers import numbers
from tests.quant import reference

SPEC = QuantSpec(quantizer=LOG2)


def without(bits: int) -> SiteQParams:
    """The numbers of a quantizer that has no scale."""
    return numbers(np.ones(1), 0, bits)


@pytest.mark.parametrize("bits", range(2, 9))
def test_log2_is_the_formula(bits: int) -> None:
    x = reference.attention_like(np.random.default_rng(bits), 6, 40)
    x[0, :4] = 0.0, 1.0, 2.0**-12, 0.75  # zero, no tie, and a tie of nothing
    got = np.asarray(LOG2.fake_quant(SPEC, without(bits), jnp.asarray(x)))
    want = np.array([[reference.log2_fake_quant(float(v), bits) for v in row] for row in x])
    np.testing.assert_array_equal(got, want)


def test_exponents_that_do_not_fit_are_one_code_for_zero() -> None:
    x = jnp.array([1.0, 0.5, 0.26, 0.125, 0.0625, 2.0**-9, 0.0])
    codes = LOG2.encode(SPEC, without(2), x)
    assert codes.tolist() == [0, 1, 2, 3, 4, 4, 4]
    assert LOG2.decode(SPEC, without(2), codes).tolist() == [1, 0.5, 0.25, 0.125, 0, 0, 0]
