import jax.numpy as jnp
import numpy as np
import pytest

from evolq_jax.quant.quantizers.shifted_log import SHIFTED_LOG
from evolq_jax.quant.spec import QuantSpec
from tests.numbers import numbers
from tests.quant import reference


@pytest.mark.parametrize(("bits", "codes"), [(3, 1), (4, 2), (6, 5)])
def test_shifted_log_is_the_formula_and_folds_into_a_bias(bits: int, codes: int) -> None:
    rng = np.random.default_rng(0)
    x = reference.gelu(4 * rng.standard_normal((5, 40)))
    site_qparams = numbers(jnp.full((1, 1), 9.17), codes, bits)
    got = np.asarray(SHIFTED_LOG.fake_quant(QuantSpec(quantizer=SHIFTED_LOG), site_qparams, jnp.asarray(x)))
    want = [[reference.shifted_log_fake_quant(float(v), 9.17, codes, bits) for v in row] for row in x]
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
    powers, weight = got + 0.17, rng.standard_normal((40, 3))
    np.testing.assert_allclose(got @ weight, powers @ weight - 0.17 * weight.sum(0), atol=1e-4)
    exponents = -codes * np.log2(powers / 9.17)
    np.testing.assert_allclose(exponents, np.round(exponents), atol=1e-3)
    assert 0 <= exponents.round().min() <= exponents.round().max() < 2**bits
