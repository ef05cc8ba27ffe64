"""Smoothing between an activation and the weights that read it."""

import jax.numpy as jnp
import numpy as np
import pytest

from evolq_jax.calibration.calibrate import calibrate
from evolq_jax.calibration.link import State
from evolq_jax.calibration.links.ranges import RANGES
from evolq_jax.calibration.links.smooth import (
    EXPONENTS,
    SMOOTH,
    Found,
    Read,
    Sample,
    best_of_block,
    factors,
)
from evolq_jax.quant.observers.of_weight import weight_qparams
from evolq_jax.quant.qparams import SiteQParams, blank_qparams
from evolq_jax.quant.scheme import QuantConfig, resolve
from evolq_jax.quant.spec import QuantSpec
from evolq_jax.trees import flatten
from evolq_jax.typing import Array
from tests.calibration.links.test_fold import calibration, close, logits, network
from tests.numbers import numbers, width
from tests.plain import PLAIN
from tests.quant import reference

ACTIVATION = QuantSpec()
WEIGHT = QuantSpec(per_channel=True)


def layer(spread: float) -> tuple[Sample, tuple[Array, ...]]:
    """200 rows of 12 channels, whose sizes differ by `spread` octaves, read by two weights."""
    rng = np.random.default_rng(0)
    rows = jnp.asarray(rng.standard_normal((200, 12)) * 2 ** (spread * rng.random(12)), jnp.float32)
    weights = tuple(jnp.asarray(rng.standard_normal((12, out)) / 4, jnp.float32) for out in (8, 5))
    return Sample(rows, rows.min(0, keepdims=True), rows.max(0, keepdims=True)), weights


def plain(rows: Array, weights: tuple[Array, ...]) -> Found:
    bits = width(4, 2)
    readers = tuple(weight_qparams(WEIGHT, bits, w) for w in weights)
    return Found(weight_qparams(ACTIVATION, bits, rows), readers)


def error(
    rows: Array, weights: tuple[Array, ...], factor: np.ndarray, site_qparams: SiteQParams | None
) -> float:
    """Of the layers' outputs, in numpy: ranges of the scaled weights, and of the rows if not given."""
    total, x = 0.0, np.asarray(rows / factor)
    site_qparams = site_qparams or weight_qparams(ACTIVATION, width(4, 2), jnp.asarray(x))
    x_q = reference.fake_quant(
        x, np.asarray(site_qparams.scale), np.asarray(site_qparams.zero_point), 4, False
    )
    for weight in weights:
        scaled = np.asarray(weight) * factor[0][:, None]
        own = weight_qparams(WEIGHT, width(4, 2), jnp.asarray(scaled))
        w_q = reference.fake_quant(scaled, np.asarray(own.scale), np.asarray(own.zero_point), 4, False)
        total += float(((x_q @ w_q - np.asarray(rows @ weight)) ** 2).sum())
    return total


@pytest.mark.parametrize("spread", [0.0, 5.0])
def test_the_best_of_the_grid_is_taken_and_is_not_worse_than_none(spread: float) -> None:
    sample, weights = layer(spread)
    rows, low, high = sample
    read = Read(ACTIVATION, (WEIGHT, WEIGHT))
    factor, site_qparams = best_of_block(read, sample, weights, plain(rows, weights))
    errors = [
        error(rows, weights, np.asarray(factors(jnp.asarray(e), low, high, weights)), None) for e in EXPONENTS
    ]
    got = error(rows, weights, np.asarray(factor), site_qparams)
    np.testing.assert_allclose(got, min(errors), rtol=1e-3)
    assert errors[0] == error(rows, weights, np.ones((1, 12), np.float32), None)
    assert got <= errors[0] * (1 + 1e-6)
    if spread:
        assert got < 0.7 * errors[0]


def test_where_nothing_is_better_everything_stays() -> None:
    (rows, low, high), weights = layer(0.0)
    rows = jnp.round(rows)  # the quantizer in place has no error, so nothing can be better
    exact = numbers(jnp.ones((1, 1)), 8, 4)
    read, current = Read(ACTIVATION, (None, None)), Found(exact, (None, None))
    factor, site_qparams = best_of_block(read, Sample(rows, low, high), weights, current)
    assert (factor == 1).all()
    assert (site_qparams.scale, site_qparams.zero_point) == (1, 8)


def test_factors_are_powers_of_the_ratio_of_the_largest_values() -> None:
    (_, low, high), weights = layer(4.0)
    a = np.abs(np.concatenate([low, high])).max(0)
    w = np.abs(np.concatenate(weights, 1)).max(1)
    want = a**0.75 / w**0.25
    got = factors(jnp.asarray([0.75, 0.25]), low, high, weights)[0]
    np.testing.assert_allclose(got, want / np.exp(np.log(want).mean()), rtol=1e-4)
    assert (factors(jnp.asarray([0.0, 0.0]), low, high, weights) == 1).all()


@pytest.mark.parametrize(("name", "scheme"), [("tiny_vit", "fully_quantized"), ("small_swin", "matmul")])
def test_smoothing_leaves_the_float_network_as_it_is(name: str, scheme: str) -> None:
    _, params, _, sites = network(name)
    config = QuantConfig(scheme, weight_bits=3, activation_bits=4, weight_observer="minmax", **PLAIN)  # type: ignore[arg-type]
    specs, bits = resolve(config, sites)
    calibrated = calibration(name, specs)
    before = RANGES(calibrated, State(params, params, blank_qparams(specs, bits, sites)))
    after = SMOOTH(calibrated, before)
    want = logits(name, (), params, {})
    for changed in (after.params, after.reference):
        close(logits(name, (), changed, {}), want)
    rescaled = {k for k, v in flatten(after.params).items() if not np.array_equal(v, flatten(params)[k])}
    proj = "blocks/attn/proj/weight" if name == "tiny_vit" else "layers.0/regular/attn/proj/weight"
    assert proj in rescaled  # the values' channels too
    # The scales fit the rescaled network: found anew, they are the same.
    anew = RANGES(calibrated, after).qparams
    for site, site_qparams in after.qparams.items():
        assert site_qparams.scale.shape == before.qparams[site].scale.shape
        np.testing.assert_allclose(site_qparams.scale, anew[site].scale, rtol=1e-3, err_msg=site)


def test_smoothing_then_folding_then_corrections() -> None:
    parts, params, images, sites = network("tiny_vit")
    specs, bits = resolve(QuantConfig("matmul", weight_bits=8, **PLAIN), sites)
    chain, batches = ("ranges", "smooth", "fold", "bias"), [images[:6], images[6:]]
    given, start = (parts, specs, params, batches), blank_qparams(specs, bits, sites)
    found = calibrate(*given, sites=sites, qparams=start, chain=chain, chunk=3)
    got = logits("tiny_vit", specs, found.params, found.qparams)
    close(got, logits("tiny_vit", (), params, {}), 0.05)
    assert all(leaf.shape == (3, 1, 1, 1) for leaf in found.qparams["blocks/norm1"])
