import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evolq_jax.quant.learned_rounding import (
    chosen_integers,
    rounding_logits,
    soft_quantize,
    soft_round,
    undecided,
)
from evolq_jax.quant.qparams import SiteQParams
from evolq_jax.quant.quantizers.uniform import UNIFORM
from evolq_jax.quant.spec import QuantSpec
from evolq_jax.typing import Array
from tests.numbers import numbers
from tests.quant import reference

RNG = np.random.default_rng(0)


def problem(bits: int, signed: bool) -> tuple[QuantSpec, SiteQParams, Array]:
    """A weight [64, 5] of which some lie outside the quantizer's range."""
    spec = QuantSpec(signed=signed, per_channel=True)
    qmin, qmax = reference.int_range(bits, signed)
    weight = RNG.standard_normal((64, 5)).astype(np.float32)
    scale = np.abs(weight).max(0, keepdims=True) * RNG.uniform(1.2, 1.9, (1, 5)) / (qmax - qmin)
    zero_point = np.zeros((1, 5)) if signed else np.round(RNG.uniform(0.3, 0.7, (1, 5)) * qmax)
    return spec, numbers(jnp.float32(scale), jnp.float32(zero_point), bits), jnp.asarray(weight)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_weights_start_as_they_are_and_round_to_nearest(bits: int, signed: bool) -> None:
    spec, site_qparams, weight = problem(bits, signed)
    v = rounding_logits(site_qparams, weight)
    low, high = (
        UNIFORM.decode(spec, site_qparams, jnp.full((1, 5), end)) for end in reference.int_range(bits, signed)
    )
    want = jnp.clip(weight, low, high)
    assert 0 < float((want != weight).mean()) < 0.5
    np.testing.assert_allclose(soft_quantize(spec, site_qparams, weight, v), want, atol=1e-5)
    np.testing.assert_array_equal(
        chosen_integers(spec, site_qparams, weight, v), UNIFORM.encode(spec, site_qparams, weight)
    )


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_integers_decided_for_are_exactly_those_of_the_grid_points(bits: int, signed: bool) -> None:
    spec, site_qparams, weight = problem(bits, signed)
    v = jnp.asarray(3 * RNG.standard_normal(weight.shape), jnp.float32)
    codes = np.asarray(chosen_integers(spec, site_qparams, weight, v))
    scale, zero_point = (np.asarray(leaf, np.float64) for leaf in site_qparams[:2])
    lower = np.floor(np.asarray(weight / site_qparams.scale)) + zero_point
    np.testing.assert_array_equal(
        codes, (lower + (np.asarray(v) >= 0)).clip(*reference.int_range(bits, signed))
    )
    assert (codes != np.asarray(UNIFORM.encode(spec, site_qparams, weight))).mean() > 0.1
    on_grid = UNIFORM.decode(spec, site_qparams, jnp.asarray(codes))
    np.testing.assert_allclose(on_grid, (codes - zero_point) * scale, rtol=1e-6)
    np.testing.assert_array_equal(UNIFORM.encode(spec, site_qparams, on_grid), codes)


def test_the_regulariser_drives_soft_rounding_to_both_ends() -> None:
    v = jnp.asarray(RNG.uniform(-2, 2, 200), jnp.float32)
    assert float(((soft_round(v) > 0.01) & (soft_round(v) < 0.99)).mean()) > 0.9

    @jax.jit
    def descend(v: Array) -> Array:
        def one(i: Array, v: Array) -> Array:
            return v - jax.grad(lambda v: undecided(v, 20.0 - 18.0 * i / 400).sum())(v)

        return jax.lax.fori_loop(0, 500, one, v)

    end = descend(v)
    assert set(np.unique(soft_round(end))) == {0.0, 1.0}
    np.testing.assert_array_equal(end > 0, v > 0)  # each to the nearer end
    assert float(undecided(end, 2.0).max()) == 0.0


def test_a_high_power_leaves_the_undecided_alone() -> None:
    gradient = jax.vmap(jax.grad(undecided), (0, None))
    half, nearly = rounding_logits(numbers(jnp.ones(()), 0, 4), jnp.asarray([0.55, 0.95]))
    low, high = (np.abs(np.asarray(gradient(jnp.stack([half, nearly]), power))) for power in (2.0, 20.0))
    assert high[0] < 1e-6 < 0.1 < low[0]
    assert high[1] > low[1]
