"""Ranges by the error of the layer's own output."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evolq_jax.calibration.calibrate import calibrate
from evolq_jax.calibration.layer import Layer
from evolq_jax.calibration.links.own_output import COARSE, FINE, WANTED, Ratios, best_ranges, with_ends
from evolq_jax.errors import UserError
from evolq_jax.quant.qparams import SiteQParams, blank_qparams
from evolq_jax.quant.quantizers.uniform import UNIFORM
from evolq_jax.quant.scheme import QuantConfig, resolve
from evolq_jax.quant.sites import fake_quant_weight
from evolq_jax.quant.spec import QuantSpec
from evolq_jax.trees import flatten
from tests.calibration.layer_problem import SPEC, LayerProblem
from tests.calibration.test_layerwise import divergence_of
from tests.numbers import numbers
from tests.tiny import Tiny

PER_TENSOR = replace(SPEC, per_channel=False)


def errors(problem: LayerProblem, spec: QuantSpec, layer: Layer, site_qparams: SiteQParams) -> np.ndarray:
    """Of every output channel, token by token, from what the layer is to give."""
    rounded = np.asarray(fake_quant_weight(spec, site_qparams, layer.weight))
    own = problem.x @ np.asarray(layer.weight)
    wanted = own + WANTED * (problem.target - np.asarray(layer.bias) - own)
    return ((problem.x @ rounded - wanted) ** 2).sum(0)


@pytest.mark.parametrize("signed", [False, True])
def test_every_channel_gets_the_best_range_of_the_grids(signed: bool) -> None:
    problem, spec = LayerProblem(), replace(SPEC, signed=signed)
    assert problem.layer.site_qparams is not None
    start = problem.layer.site_qparams
    if signed:
        start = start._replace(zero_point=jnp.zeros_like(start.zero_point))
    layer = best_ranges(spec, problem.moments, problem.layer._replace(site_qparams=start), None)
    assert layer.site_qparams is not None
    np.testing.assert_array_equal(layer.weight, problem.layer.weight)
    np.testing.assert_array_equal(layer.bias, problem.layer.bias)

    def best(middle: SiteQParams, grid: list[tuple[float, float]]) -> SiteQParams:
        tried = [with_ends(spec, middle, Ratios(*map(jnp.float32, ends))) for ends in [(1.0, 1.0), *grid]]
        chosen = np.argmin([errors(problem, spec, problem.layer, one) for one in tried], axis=0)
        return jax.tree.map(lambda *leaves: np.choose(chosen, np.stack(leaves)), *tried)

    coarse = best(start, [(ratio, ratio) for ratio in COARSE])
    want = best(coarse, [(low, high) for low in FINE for high in FINE])
    got, least, before = (
        errors(problem, spec, problem.layer, one) for one in (layer.site_qparams, want, start)
    )
    np.testing.assert_allclose(got, least, rtol=1e-3, atol=1e-3)
    assert got.sum() < 0.95 * before.sum()


@pytest.mark.parametrize("ends", [(0.5, 1.0), (1.0, 0.5), (1.1, 1.1), (0.9, 0.4)])
def test_ends_move_and_zero_stays_a_value(ends: tuple[float, float]) -> None:
    spec = QuantSpec()
    before = numbers(jnp.asarray([[0.1, 0.2]]), jnp.asarray([[5.0, 0.0]]), 4)
    after = with_ends(spec, before, Ratios(*map(jnp.float32, ends)))
    np.testing.assert_array_equal(after.zero_point, np.round(after.zero_point))
    width = np.asarray(after.scale) * 15
    low, high = (
        np.asarray(before.zero_point * before.scale),
        np.asarray((15 - before.zero_point) * before.scale),
    )
    np.testing.assert_allclose(width, ends[0] * low + ends[1] * high, rtol=1e-5)
    np.testing.assert_allclose(after.zero_point * after.scale, ends[0] * low, atol=width.max() / 30)


def test_decided_integers_keep_their_zero_point() -> None:
    problem, spec = LayerProblem(), replace(SPEC, codes=True)
    assert problem.layer.site_qparams is not None
    codes = UNIFORM.encode(SPEC, problem.layer.site_qparams, problem.layer.weight)
    layer = problem.layer._replace(weight=codes, site_qparams=problem.layer.site_qparams)
    found = best_ranges(spec, problem.moments, layer, None)
    assert found.site_qparams is not None
    np.testing.assert_array_equal(found.weight, codes)
    np.testing.assert_array_equal(found.site_qparams.zero_point, problem.layer.site_qparams.zero_point)


def test_one_range_for_all_channels_moves_as_one() -> None:
    problem = LayerProblem()
    weight = problem.layer.weight
    scale = jnp.asarray([[(weight.max() - weight.min()) / 7]])
    start = numbers(scale, jnp.round(-weight.min() / scale), 3)
    layer = best_ranges(PER_TENSOR, problem.moments, problem.layer._replace(site_qparams=start), None)
    assert layer.site_qparams is not None
    assert layer.site_qparams.scale.shape == (1, 1)
    got, before = (
        errors(problem, PER_TENSOR, problem.layer, one).sum() for one in (layer.site_qparams, start)
    )
    assert got < before


def test_the_network_comes_nearer_to_the_float_one(tiny: Tiny) -> None:
    """And nothing but the ranges of the blocks' layers moves."""
    specs, bits = resolve(QuantConfig("matmul", weight_bits=3, activation_observer="pow2"), tiny.sites)
    images = jnp.asarray(np.random.default_rng(1).standard_normal((48, 16, 16, 3)), jnp.float32) * 0.6

    start = blank_qparams(specs, bits, tiny.sites)
    run = partial(
        calibrate, tiny.parts, specs, tiny.params, [images], sites=tiny.sites, qparams=start, chunk=16
    )
    plain, (params, _, qparams) = run().qparams, run(chain=("ranges", "own_output"))
    jax.tree.map(np.testing.assert_array_equal, flatten(params), flatten(tiny.params))
    moved = {name for name in plain if not np.array_equal(plain[name].scale, qparams[name].scale)}
    layers = ("attn/qkv", "attn/proj", "mlp/fc1", "mlp/fc2")
    assert moved == {f"blocks/{layer}/weight" for layer in layers}
    divergence = divergence_of(tiny, specs)
    before, after = (divergence(tiny.params, found) for found in (plain, qparams))
    assert after < 0.9 * before


def test_it_may_not_come_after_a_link_that_rounds(tiny: Tiny) -> None:
    chain = ("ranges", "gptq", "own_output")
    with pytest.raises(UserError, match="'own_output' after 'gptq': it would change the ranges"):
        calibrate(tiny.parts, (), tiny.params, [tiny.images], sites=tiny.sites, qparams={}, chain=chain)
