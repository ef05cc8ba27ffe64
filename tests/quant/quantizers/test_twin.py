import jax.numpy as jnp
import numpy as np
import pytest

from evolq_jax.quant.quantizers.twin import TWIN
from evolq_jax.quant.spec import QuantSpec
from tests.numbers import numbers
from tests.quant import reference


def twin(bits: int, signed: bool, step: float, octaves: int, x: np.ndarray) -> np.ndarray:
    spec = QuantSpec(signed=signed, quantizer=TWIN)
    return np.asarray(TWIN.fake_quant(spec, numbers(np.full(1, step), octaves, bits), jnp.asarray(x)))


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize(("bits", "octaves"), [(3, 2), (4, 3), (4, 0), (8, 5)])
def test_twin_is_the_formula(bits: int, octaves: int, signed: bool) -> None:
    x = np.random.default_rng(0).standard_normal(300).astype(np.float32) ** 3
    x = x if signed else np.abs(x)
    x[:2] = 0.0, 1e6
    want = [reference.twin_fake_quant(float(v), 0.01, octaves, bits, signed) for v in x]
    np.testing.assert_allclose(twin(bits, signed, 0.01, octaves, x), want, rtol=1e-6)


@pytest.mark.parametrize("signed", [False, True])
def test_twin_has_no_more_values_than_codes_and_runs_as_shifted_integers(signed: bool) -> None:
    x = np.linspace(-4.0 if signed else 0.0, 40.0, 5000, dtype=np.float32)
    got = twin(4, signed, 2.0**-6, 5, x)
    assert len(np.unique(got)) <= 16
    codes = got * 2**6  # what is multiplied, after the shift of the coarser range
    np.testing.assert_array_equal(codes, np.round(codes))
    assert (codes[codes > 8] % 2**5 == 0).all()
    assert got[np.abs(x).argmin()] == 0
    assert np.isclose(got.max(), 7 * 2.0**-1)


@pytest.mark.parametrize("signed", [False, True])
def test_the_highest_bit_of_a_code_says_which_range_it_is_of(signed: bool) -> None:
    spec, site_qparams = QuantSpec(signed=signed, quantizer=TWIN), numbers(np.full(1, 2.0**-6), 5, 4)
    x = jnp.linspace(-1.0 if signed else 0.0, 5.0, 2001)
    codes = np.asarray(TWIN.encode(spec, site_qparams, x)).astype(int)
    assert set(codes) == set(range(-8, 8) if signed else range(16))
    of_fine_range = (codes & 8) != 0 if signed else (codes & 8) == 0  # two's complement: the sign's bit
    steps = np.asarray(TWIN.decode(spec, site_qparams, jnp.asarray(codes, jnp.float32))) * 2**6
    assert (np.abs(steps[of_fine_range]) <= 8).all()
    assert (steps[~of_fine_range] % 2**5 == 0).all()
