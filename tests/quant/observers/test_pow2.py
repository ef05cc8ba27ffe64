import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evolq_jax.quant.observers import OBSERVERS
from evolq_jax.quant.observers.pow2 import CLIPS, OFFSETS, POW2
from evolq_jax.quant.qparams import SiteQParams
from evolq_jax.quant.quantizers.base import Range, fake_quant
from evolq_jax.quant.quantizers.uniform import UNIFORM
from evolq_jax.quant.spec import QuantSpec
from tests.numbers import width

SPREADS = np.array([0.02, 0.3, 1.0, 40.0, 500.0, 0.0])  # the last channel is always zero


def outliers(seed: int = 0) -> jnp.ndarray:
    noise = np.random.default_rng(seed).standard_normal((6, 20, len(SPREADS)))
    return jnp.asarray(noise * SPREADS + 0.3 * SPREADS, jnp.float32)


def observe(spec: QuantSpec, bits: int, x: jnp.ndarray) -> SiteQParams:
    observer, bounds, leaf = spec.observer, range_of(spec, x), width(bits, 3)
    errors = observer.chunk_errors(spec, leaf, bounds, x)
    return observer.qparams(spec, leaf, bounds, errors=errors)


def range_of(spec: QuantSpec, x: jnp.ndarray) -> Range:
    return spec.observer.batch_range(spec, x.shape, spec.observer.chunk_range(spec, x.shape, x))


@pytest.mark.parametrize("bits", [3, 4, 8])
@pytest.mark.parametrize("signed", [False, True])
def test_steps_are_powers_of_two_apart_and_zero_points_are_integers(bits: int, signed: bool) -> None:
    spec = QuantSpec(signed=signed, per_channel=True, observer=OBSERVERS["pow2"])
    site_qparams = observe(spec, bits, outliers())
    assert site_qparams.scale.shape == site_qparams.zero_point.shape == (1, 1, len(SPREADS))
    shifts = np.log2(np.asarray(site_qparams.scale / site_qparams.scale.max()))
    np.testing.assert_allclose(shifts, np.round(shifts), atol=1e-5)
    assert len(set(np.round(shifts).ravel())) >= 4
    np.testing.assert_array_equal(site_qparams.zero_point, jnp.round(site_qparams.zero_point))
    assert (site_qparams.zero_point == 0).all() == signed


@pytest.mark.parametrize("bits", [3, 4, 8])
def test_channels_keep_their_relative_precision(bits: int) -> None:
    spec, x = QuantSpec(per_channel=True, observer=OBSERVERS["pow2"]), outliers()
    error = np.asarray(((fake_quant(spec, observe(spec, bits, x), x) - x) ** 2).mean((0, 1)))
    exact = QuantSpec(per_channel=True, observer=OBSERVERS["omse"])
    ideal = np.asarray(((fake_quant(exact, observe(exact, bits, x), x) - x) ** 2).mean((0, 1)))
    assert error[-1] == 0
    # A power of two is at most a factor sqrt(2) off each way, if the common offset can choose.
    assert (error[:-1] <= 4 * ideal[:-1]).all()
    shared = QuantSpec(observer=OBSERVERS["omse"])
    alike = np.asarray(((fake_quant(shared, observe(shared, bits, x), x) - x) ** 2).mean((0, 1)))
    assert (error[:3] < alike[:3] / 8).all()  # the narrow channels are lost under one scale for all


@pytest.mark.parametrize("signed", [False, True])
def test_factors_fold_into_shifts_before_the_product_and_the_next_bias(signed: bool) -> None:
    """A linear layer on the fake-quantized activation, in integers: one step, shifts, and another bias."""
    spec, x = QuantSpec(signed=signed, per_channel=True, observer=OBSERVERS["pow2"]), outliers()
    own = observe(spec, 5, x)
    rng = np.random.default_rng(4)
    codes, steps = rng.integers(-8, 8, (len(SPREADS), 3)), 0.01 * np.exp(rng.standard_normal(3))
    bias = rng.standard_normal(3)
    want = np.asarray(fake_quant(spec, own, x), np.float64) @ (codes * steps) + bias

    step = float(own.scale.min())
    shifts = np.round(np.log2(np.asarray(own.scale).ravel() / step)).astype(int)
    q = np.asarray(UNIFORM.encode(spec, own, x)).astype(np.int64)
    sums = (q << shifts) @ codes  # integers alone
    zeros = (np.asarray(own.zero_point).ravel().astype(np.int64) << shifts) @ codes
    folded = bias - step * steps * zeros
    np.testing.assert_allclose(step * steps * sums + folded, want, rtol=1e-5, atol=1e-5)


def test_the_choice_is_the_best_of_all_offsets_and_clips() -> None:
    errors = jnp.asarray(np.random.default_rng(3).random((OFFSETS * CLIPS, 1, 5)))
    table = np.asarray(errors).reshape(OFFSETS, CLIPS, 5)
    offset = table.min(1).sum(-1).argmin()
    want = offset * CLIPS + table[offset].argmin(0)
    np.testing.assert_array_equal(POW2.best(errors)[0], want)


def test_every_candidate_without_clipping_holds_the_range() -> None:
    spec, x = QuantSpec(per_channel=True, observer=OBSERVERS["pow2"]), outliers()
    bounds = range_of(spec, x)
    for index in range(0, OFFSETS * CLIPS, CLIPS):
        site_qparams = jax.jit(lambda i: POW2.candidate(spec, width(4, 3), bounds, i))(index)
        error = jnp.abs(fake_quant(spec, site_qparams, x) - x)
        # half a step, and as much again where the zero point was rounded
        assert (error <= 1.001 * site_qparams.scale).all()
