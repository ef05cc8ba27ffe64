import jax.numpy as jnp
import numpy as np
import pytest

from evolq_jax.quant.log2 import log2_dequantize, log2_fake_quant, log2_quantize
from evolq_jax.quant.spec import QuantSpec
from tests.quant import reference


@pytest.mark.parametrize("bits", range(2, 9))
def test_log2_is_the_formula(bits: int) -> None:
    x = reference.attention_like(np.random.default_rng(bits), 6, 40)
    x[0, :4] = 0.0, 1.0, 2.0**-12, 0.75  # zero, no tie, and a tie of nothing
    got = np.asarray(log2_fake_quant(QuantSpec(bits=bits, quantizer="log2"), jnp.asarray(x)))
    want = np.array([[reference.log2_fake_quant(float(v), bits) for v in row] for row in x])
    np.testing.assert_array_equal(got, want)


def test_log2_exponents_that_do_not_fit_are_zero() -> None:
    spec = QuantSpec(bits=2, quantizer="log2")
    x = jnp.array([1.0, 0.5, 0.26, 0.125, 0.0625, 0.0])
    assert log2_quantize(spec, x).tolist() == [0, 1, 2, 3, 4, np.inf]
    assert log2_dequantize(spec, log2_quantize(spec, x)).tolist() == [1, 0.5, 0.25, 0.125, 0, 0]
