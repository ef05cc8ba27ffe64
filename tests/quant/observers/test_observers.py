import jax.numpy as jnp
import numpy as np
import pytest

from evolq_jax.quant.observers import OBSERVERS
from evolq_jax.quant.observers.percentile import Percentile
from evolq_jax.quant.qparams import SiteQParams
from evolq_jax.quant.quantizers.base import Range
from evolq_jax.quant.quantizers.uniform import range_qparams
from evolq_jax.quant.spec import QuantSpec
from tests.numbers import width
from tests.quant.observers import reference

SHAPE = (6, 7, 5)  # images, tokens, channels


def batches(seed: int, count: int, outliers: bool = True) -> list[np.ndarray]:
    """Channels of different spread and offset, with a few values far out."""
    rng = np.random.default_rng(seed)
    spread, offset = np.array([0.2, 1, 3, 0.5, 8]), np.array([0, 0.5, -2, 0.1, 1])
    found: list[np.ndarray] = []
    for _ in range(count):
        x = rng.standard_normal(SHAPE) * spread + offset
        if outliers:
            x[rng.integers(6), rng.integers(7)] *= 4
        found.append(x.astype(np.float32))
    return found


def observe(spec: QuantSpec, bits: int, data: list[np.ndarray], chunk: int) -> SiteQParams:
    """The observer's steps, with every batch in chunks of `chunk` images."""
    observer, leaf = spec.observer, width(bits, 3)

    def chunks(x: np.ndarray) -> list[jnp.ndarray]:
        return [jnp.asarray(x[i : i + chunk]) for i in range(0, len(x), chunk)]

    def batch(x: np.ndarray) -> Range:
        parts = [observer.chunk_range(spec, SHAPE, c) for c in chunks(x)]
        low, high = (jnp.concatenate(ends) for ends in zip(*parts, strict=True))
        return observer.batch_range(spec, SHAPE, (low, high))

    low, high = (jnp.stack(ends) for ends in zip(*(batch(x) for x in data), strict=True))
    bounds = observer.combine_ranges((low, high))
    if not observer.num_grids:
        return observer.qparams(spec, leaf, bounds)
    errors = [observer.chunk_errors(spec, leaf, bounds, c) for c in chunks(data[-1])]
    return observer.qparams(spec, leaf, bounds, errors=jnp.sum(jnp.stack(errors), axis=0))


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("observer", ["minmax", "ema", "percentile", "omse", "omse_shared"])
def test_observers_are_the_loops(observer: str, per_channel: bool, signed: bool) -> None:
    spec = QuantSpec(signed=signed, per_channel=per_channel, observer=OBSERVERS[observer])
    data = batches(1, 3)
    got = observe(spec, 4, data, chunk=2)
    assert got.scale.shape == got.zero_point.shape == ((1, 1, 5) if per_channel else (1, 1, 1))
    reference.check(spec, data, got)


@pytest.mark.parametrize("bits", [4, 8])
def test_ptf_is_the_loops(bits: int) -> None:
    spec = QuantSpec(per_channel=True, observer=OBSERVERS["ptf"])
    data = batches(2, 2)
    got = observe(spec, bits, data, chunk=3)
    reference.check(spec, data, got)
    ratios = np.asarray(got.scale).ravel() / np.asarray(got.scale).max()
    assert set(ratios.tolist()) <= {1.0, 0.5, 0.25, 0.125}
    assert len(set(ratios.tolist())) > 1
    assert len(set(np.asarray(got.zero_point).ravel().tolist())) == 1


@pytest.mark.parametrize("quantile", [0.9, 0.985, 1.0])
@pytest.mark.parametrize("chunk", [1, 2, 6])
@pytest.mark.parametrize("per_channel", [False, True])
def test_percentile_is_the_quantile_of_the_whole_batch(
    per_channel: bool, chunk: int, quantile: float
) -> None:
    spec = QuantSpec(per_channel=per_channel, observer=Percentile(quantile=quantile))
    (x,) = batches(3, 1)
    got = np.asarray(observe(spec, 8, [x], chunk).scale).ravel()
    axes = (0, 1) if per_channel else None
    low, high = np.quantile(x, 1 - quantile, axis=axes), np.quantile(x, quantile, axis=axes)
    want = (np.maximum(high, 0) - np.minimum(low, 0)) / 255
    np.testing.assert_allclose(got, np.atleast_1d(want), rtol=1e-5)


def test_omse_chooses_a_shrink_for_every_channel() -> None:
    data = batches(4, 1)
    whole = np.asarray(observe(QuantSpec(per_channel=True), 3, data, 6).scale).ravel()
    own, shared = (
        np.asarray(observe(QuantSpec(per_channel=True, observer=OBSERVERS[name]), 3, data, 6).scale).ravel()
        / whole
        for name in ("omse", "omse_shared")
    )
    assert len(set(own.round(3).tolist())) > 1
    np.testing.assert_allclose(shared, shared[0], rtol=1e-5)


def test_scores_come_from_the_last_batch_and_ranges_from_all() -> None:
    spec = QuantSpec(observer=OBSERVERS["omse"])
    wide, narrow = batches(5, 2)
    narrow = narrow / 4
    a, b = observe(spec, 4, [wide, narrow], 6), observe(spec, 4, [narrow, wide], 6)
    assert float(a.scale.squeeze()) < 0.7 * float(b.scale.squeeze())  # both have the range of `wide`
    reference.check(spec, [wide, narrow], a)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("bounds", [(2.0, 5.0), (-5.0, -2.0), (0.0, 0.0), (-1.0, 2.0)])
def test_zero_is_always_representable(bounds: tuple[float, float], signed: bool) -> None:
    spec = QuantSpec(signed=signed)
    low, high = (jnp.full((1, 1), end) for end in bounds)
    got = range_qparams(spec, width(4, 2), (low, high))
    scale, zero = float(got.scale.squeeze()), float(got.zero_point.squeeze())
    assert (scale, zero) == pytest.approx(reference.range_qparams(*bounds, 4, signed))
    assert scale > 0
    assert zero == round(zero)
    for end in bounds:  # within a step (the symmetric type is half a step short above)
        error = reference.squared_error(np.array([end]), scale, zero, 4, signed) ** 0.5
        assert error <= (0.51 if not signed else 1.0) * scale
