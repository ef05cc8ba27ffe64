"""Range search that weighs errors by how much values matter, and that searches both ends of a range."""

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evolq_jax.calibration.calibrate import calibrate
from evolq_jax.calibration.fisher import importance, site_gradients, weight_importance
from evolq_jax.calibration.link import Calibration, State
from evolq_jax.calibration.links.ranges import RANGES, RangesConfig
from evolq_jax.network.reading import float_reading
from evolq_jax.network.run import forward
from evolq_jax.network.sites import observe
from evolq_jax.quant.observers import OBSERVERS
from evolq_jax.quant.observers.of_quantizer import observer_of
from evolq_jax.quant.observers.of_weight import weight_qparams
from evolq_jax.quant.qparams import QParams, SiteQParams, blank_qparams
from evolq_jax.quant.scheme import QuantConfig, resolve
from evolq_jax.quant.spec import QuantSpec
from evolq_jax.trees import flatten, unflatten
from evolq_jax.typing import Array, Params
from tests.numbers import width
from tests.quant.observers import reference
from tests.tiny import Tiny

RNG = np.random.default_rng(0)
LEANING = np.exp(RNG.standard_normal((60, 4))).astype(np.float32) * [1, 1, 4, 0.1] - 0.3


def errors_of(
    x: np.ndarray, options: list[tuple[float, float]], signed: bool, weight: Any = 1.0
) -> list[float]:
    found: list[float] = []
    for low, high in options:
        scale, zero = reference.range_qparams(low, high, 3, signed)
        q = np.clip(np.round(x / scale + zero), *((-4, 3) if signed else (0, 7)))
        found.append(float((weight * ((q - zero) * scale - x) ** 2).sum()))
    return found


def shares(x: np.ndarray, signed: bool, around: tuple[float, float] | None) -> list[tuple[float, float]]:
    """The ranges of the grid: shares of the ends, or quarters of steps around a range."""
    low, high = around or (float(x.min()), float(x.max()))
    steps = [0.8 ** (j / 4) for j in range(-3, 4)] if around else [0.8**i for i in range(9)]
    return [(low * a, high * b) for b in steps for a in steps if not signed or a == b]


@pytest.mark.parametrize("weighed", [False, True])
@pytest.mark.parametrize("signed", [False, True])
def test_both_ends_are_searched_coarse_then_fine(signed: bool, weighed: bool) -> None:
    spec = QuantSpec(signed=signed, per_channel=True, observer=OBSERVERS["omse_ends"])
    weights = np.exp(2 * RNG.standard_normal(LEANING.shape)).astype(np.float32) if weighed else None
    importance = None if weights is None else jnp.asarray(weights)
    got = weight_qparams(spec, width(3, 2), jnp.asarray(LEANING), importance)
    assert got.scale.shape == (1, 4)
    for channel, x in enumerate(LEANING.T):
        weight = 1.0 if weights is None else weights[:, channel]
        coarse = shares(x, signed, None)
        assert len(coarse) == spec.observer.num_candidates(spec, 0)
        best = coarse[int(np.argmin(errors_of(x, coarse, signed, weight)))]
        fine = shares(x, signed, best)
        assert len(fine) == spec.observer.num_candidates(spec, 1)
        errors = errors_of(x, fine, signed, weight)
        scale, zero = float(got.scale[0, channel]), float(got.zero_point[0, channel])
        q = np.clip(np.round(x / scale + zero), *((-4, 3) if signed else (0, 7)))
        np.testing.assert_allclose((weight * ((q - zero) * scale - x) ** 2).sum(), min(errors), rtol=1e-3)
        assert min(errors) <= min(errors_of(x, coarse, signed, weight))


def test_searching_both_ends_loses_less_than_shrinking_where_one_end_is_far_out() -> None:
    x = RNG.standard_normal((3000, 4)).astype(np.float32)
    x[0] = 12.0

    def error(observer: str) -> float:
        spec = QuantSpec(per_channel=True, observer=OBSERVERS[observer])
        found = weight_qparams(spec, width(3, 2), jnp.asarray(x))
        q = np.clip(np.round(x / found.scale + found.zero_point), 0, 7)
        return float((((q - found.zero_point) * found.scale - x) ** 2).sum())

    assert error("omse_ends") < 0.9 * error("omse")


def test_both_ends_of_activations_are_searched_chunk_by_chunk(tiny: Tiny) -> None:
    """Scale and zero point of an activation, from chunks, are those of all its values at once."""
    site = "blocks/mlp/gelu"
    spec = QuantSpec(observer=OBSERVERS["omse_ends"])
    calibrated = Calibration(tiny.parts, ((site, spec),), tiny.sites, [tiny.images], 4)
    blank = blank_qparams(calibrated.specs, 4, tiny.sites)
    found = RANGES(calibrated, State(tiny.params, tiny.params, blank)).qparams[site]

    @jax.jit
    def whole(params: Params, images: Array) -> SiteQParams:
        values = observe(tiny.parts, lambda name, x, _: x, params, images, stats={site: None})[site]
        return jax.vmap(partial(weight_qparams, spec, width(4, 3)))(values)

    want = whole(tiny.params, tiny.images)
    np.testing.assert_allclose(found.scale, want.scale, rtol=1e-4)
    np.testing.assert_array_equal(found.zero_point, want.zero_point)
    assert (found.zero_point > 0).all()


@pytest.mark.parametrize("observer", ["omse", "pow2"])
def test_equal_importance_changes_nothing_and_chunks_add_up(observer: str) -> None:
    spec = QuantSpec(per_channel=True, observer=OBSERVERS[observer])
    x, weight = jnp.asarray(LEANING), jnp.asarray(RNG.random(LEANING.shape), jnp.float32)
    bounds = spec.observer.batch_range(spec, x.shape, spec.observer.chunk_range(spec, x.shape, x))

    def errors(rows: slice, importance: Array | None) -> Array:
        return spec.observer.chunk_errors(spec, width(3, 2), bounds, x[rows], importance=importance)

    every = slice(None)
    twice = errors(every, 2 * jnp.ones_like(x))
    np.testing.assert_allclose(twice, 2 * errors(every, None), rtol=1e-5)
    first, second = (errors(rows, weight[rows]) for rows in (slice(30), slice(30, None)))
    np.testing.assert_allclose(first + second, errors(every, weight), rtol=1e-4)


def test_gradients_at_sites_and_weights_are_those_of_the_projection(tiny: Tiny) -> None:
    """Against finite differences of the scalar, computed apart."""
    images, keys = tiny.images[:4], jax.random.split(jax.random.key(3), 4)
    vectors = jax.vmap(lambda key: jax.random.normal(key, (10,)))(keys)

    @jax.jit
    def projection(params: Any) -> Array:
        log_p = jax.nn.log_softmax(forward(tiny.parts, float_reading(params), images))
        at_start = jax.nn.log_softmax(forward(tiny.parts, float_reading(tiny.params), images))
        return (vectors * jnp.exp(at_start / 2) * log_p).sum()

    name, leaves = "blocks/mlp/fc2/bias", flatten(tiny.params)
    moved = leaves[name].at[1, 5].add(0.02), leaves[name].at[1, 5].add(-0.02)
    slope = (
        projection(unflatten(leaves | {name: moved[0]})) - projection(unflatten(leaves | {name: moved[1]}))
    ) / 0.04
    gradients = site_gradients(tiny.parts, ("blocks/mlp/fc2", "norm"), tiny.params, images, keys=keys)
    assert gradients["blocks/mlp/fc2"].shape == (3, 4, 5, 32)
    np.testing.assert_allclose(gradients["blocks/mlp/fc2"][1, ..., 5].sum(), slope, rtol=2e-2)
    names = ("blocks/mlp/fc2/weight", "head/weight")
    found = weight_importance(
        tiny.parts, names, tiny.params, tiny.images.reshape(3, 4, 16, 16, 3), key=jax.random.key(0)
    )
    for weight in names:
        assert found[weight].shape == leaves[weight].shape
        np.testing.assert_allclose(np.mean(found[weight]), 2.0, rtol=1e-4)  # 1, and squares of mean 1
        assert float(found[weight].max()) > 4


def test_importance_has_mean_two_over_every_image_and_leaves_no_value_out() -> None:
    gradients = jnp.asarray(RNG.standard_normal((6, 5, 4)) * np.array([0, 1, 10]).repeat(2)[:, None, None])
    found = np.asarray(importance(gradients, 3))
    assert found.min() >= 1
    np.testing.assert_allclose(found.reshape(3, -1).mean(1), [1, 2, 2], rtol=1e-5)
    assert (importance(jnp.zeros((1, 4)), 3) == 1).all()


def test_the_option_changes_scored_ranges_alone(tiny: Tiny) -> None:
    config = QuantConfig(weight_bits=3, activation_bits=4, softmax_quantizer="twin", gelu_quantizer="twin")
    specs, bits = resolve(config, tiny.sites)
    given, start = (tiny.parts, specs, tiny.params, [tiny.images]), blank_qparams(specs, bits, tiny.sites)

    def run(fisher: bool, chunk: int) -> QParams:
        chain = [replace(RANGES, settings=RangesConfig(fisher))]
        return calibrate(*given, sites=tiny.sites, qparams=start, chain=chain, chunk=chunk).qparams

    plain, weighed, other = run(False, 6), run(True, 6), run(True, 12)

    def same(a: SiteQParams, b: SiteQParams) -> bool:
        return bool(np.allclose(a.scale, b.scale, rtol=1e-6) and np.array_equal(a.zero_point, b.zero_point))

    changed = {site for site in plain if not same(plain[site], weighed[site])}
    assert "blocks/attn/qkv/weight" in changed
    assert all(observer_of(spec).num_grids for site, spec in specs if site in changed)
    activations = [site for site in plain if not tiny.sites[site].is_weight]
    assert sum(not same(other[site], weighed[site]) for site in activations) <= 1  # a tie
