"""What holds for every quantizer."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evolq_jax.quant.qparams import SiteQParams
from evolq_jax.quant.quantizers import QUANTIZERS
from evolq_jax.quant.quantizers.base import Quantizer, fake_quant, power_of_two
from evolq_jax.quant.spec import QuantSpec
from evolq_jax.typing import Array

ALL = pytest.mark.parametrize("quantizer", list(QUANTIZERS.values()), ids=list(QUANTIZERS))


def spec_of(quantizer: Quantizer, signed: bool) -> QuantSpec:
    may_be_signed = quantizer.equal_steps or bool(quantizer.signed_for)
    return QuantSpec(signed=signed and may_be_signed, quantizer=quantizer)


def some_numbers(quantizer: Quantizer, spec: QuantSpec, bits: int, rng: np.random.Generator) -> SiteQParams:
    """As calibration would find them: a candidate, or any scale and a zero point among the codes."""
    width = jnp.full((1, 1), bits, jnp.float32)
    if quantizer.num_candidates(spec):
        bounds = jnp.full((1, 1), -0.1), jnp.full((1, 1), float(rng.uniform(0.2, 9)))
        return quantizer.candidate(
            spec, width, bounds, jnp.int32(rng.integers(quantizer.num_candidates(spec)))
        )
    lowest, highest = (int(end.item()) for end in quantizer.code_range(spec, width))
    zero_point = 0 if spec.signed else rng.integers(lowest, highest + 1)
    scale = jnp.full((1, 1), float(rng.uniform(0.01, 1)))
    return SiteQParams(scale, jnp.full((1, 1), float(zero_point)), width)


def some_values(quantizer: Quantizer, rng: np.random.Generator) -> Array:
    """Of every size, with zero, and where the quantizer takes them below it."""
    x = rng.standard_normal((6, 50)) ** 3
    if quantizer.uses == ("softmax",):
        x = np.exp(-np.abs(5 * x))
    elif not quantizer.equal_steps:
        x = np.where(x < 0, -0.17 * np.abs(np.sin(x)), x)
    x[0, 0] = 0.0
    return jnp.asarray(x, jnp.float32)


@ALL
@settings(max_examples=20, derandomize=True, deadline=None, database=None)
@given(bits=st.integers(2, 8), signed=st.booleans(), seed=st.integers(0, 2**32 - 1))
def test_fake_quant_is_decode_of_encode_and_codes_are_integers_in_range(
    quantizer: Quantizer, bits: int, signed: bool, seed: int
) -> None:
    rng, spec = np.random.default_rng(seed), spec_of(quantizer, signed)
    site_qparams, x = some_numbers(quantizer, spec, bits, rng), some_values(quantizer, rng)
    codes = quantizer.encode(spec, site_qparams, x)
    assert codes.dtype == jnp.float32
    assert codes.shape == x.shape
    np.testing.assert_array_equal(codes, np.round(codes))
    lowest, highest = (end.item() for end in quantizer.code_range(spec, site_qparams.bits))
    assert highest - lowest + 1 <= 2**bits + (quantizer.name == "log2")
    assert lowest <= codes.min() <= codes.max() <= highest
    values = quantizer.decode(spec, site_qparams, codes)
    np.testing.assert_array_equal(fake_quant(spec, site_qparams, x), values)
    # A value that stands for a code is encoded as that code again, but for rounding of logarithms.
    again = quantizer.decode(spec, site_qparams, quantizer.encode(spec, site_qparams, values))
    np.testing.assert_allclose(again, values, rtol=1e-5, atol=1e-6)


@ALL
def test_a_quantizer_is_a_static_argument_and_says_what_it_is(quantizer: Quantizer) -> None:
    assert hash(quantizer) == hash(QUANTIZERS[quantizer.name])
    assert quantizer.does
    assert quantizer.integer
    assert quantizer.uses
    assert not {quantizer.does[-1], quantizer.integer[-1]} & {"."}
    assert set(quantizer.signed_for) <= set(quantizer.uses)


@ALL
def test_bits_and_numbers_are_traced(quantizer: Quantizer) -> None:
    rng, spec = np.random.default_rng(0), spec_of(quantizer, signed=False)
    x, compiled = some_values(quantizer, rng), []

    @jax.jit
    def run(site_qparams: SiteQParams, x: Array) -> Array:
        compiled.append(1)
        return fake_quant(spec, site_qparams, x)

    many = [some_numbers(quantizer, spec, bits, rng) for bits in range(2, 9)]
    alone = [run(site_qparams, x) for site_qparams in many]
    assert len(compiled) == 1
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *many)
    mapped = jax.jit(jax.vmap(lambda site_qparams: fake_quant(spec, site_qparams, x)))(stacked)
    for one, other in zip(alone, mapped, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["log", "twin", "shifted_log", "shifted_log2", "shifted_log_sqrt2"])
def test_candidates_differ_and_share_the_bits(name: str) -> None:
    quantizer, bits = QUANTIZERS[name], jnp.full((1, 1), 5.0)
    spec = QuantSpec(quantizer=quantizer)
    bounds = jnp.full((1, 1), -0.1), jnp.full((1, 1), 3.0)
    indices = jnp.arange(quantizer.num_candidates(spec))
    found = jax.vmap(lambda i: quantizer.candidate(spec, bits, bounds, i))(indices)
    pairs = set(zip(found.scale.ravel().tolist(), found.zero_point.ravel().tolist(), strict=True))
    assert len(pairs) == len(indices)
    assert (found.bits == 5).all()


def test_powers_of_two_are_exact_and_become_zero_or_infinite_beyond_float32() -> None:
    exponents = np.arange(-300, 300)
    powers = np.asarray(power_of_two(jnp.asarray(exponents, jnp.float32)))
    inside = (exponents >= -126) & (exponents <= 127)
    np.testing.assert_array_equal(powers[inside], np.ldexp(np.float32(1), exponents[inside]))
    assert (powers[exponents < -126] == 0).all()
    assert np.isinf(powers[exponents > 127]).all()
