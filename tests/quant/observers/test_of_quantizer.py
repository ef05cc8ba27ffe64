"""The observers of logarithmic and twin quantizers: each takes the best of its whole grid."""

import jax.numpy as jnp
import numpy as np
import pytest

from evolq_jax.quant.observers import OBSERVERS
from evolq_jax.quant.observers.of_quantizer import observer_of
from evolq_jax.quant.qparams import SiteQParams
from evolq_jax.quant.quantizers import QUANTIZERS
from evolq_jax.quant.quantizers.base import fake_quant
from evolq_jax.quant.quantizers.twin import TWIN
from evolq_jax.quant.scheme import QuantConfig, resolve
from evolq_jax.quant.spec import QuantSpec
from tests.numbers import width
from tests.quant import reference
from tests.tiny import Tiny

RNG = np.random.default_rng(0)
GELU = reference.gelu(2 * RNG.standard_normal((4, 6, 8)) * np.exp(RNG.standard_normal(8)))
SOFTMAX = reference.attention_like(RNG, 24, 16).reshape(4, 6, 16)


def observe(spec: QuantSpec, bits: int, x: np.ndarray, chunk: int) -> SiteQParams:
    chunks = [jnp.asarray(x[i : i + chunk]) for i in range(0, len(x), chunk)]
    observer, leaf = observer_of(spec), width(bits, 3)
    ends = zip(*(observer.chunk_range(spec, x.shape, c) for c in chunks), strict=True)
    low, high = (jnp.concatenate(end) for end in ends)
    bounds = observer.batch_range(spec, x.shape, (low, high))
    assert observer.num_grids == 1
    errors = jnp.stack([observer.chunk_errors(spec, leaf, bounds, c) for c in chunks]).sum(0)
    return observer.qparams(spec, leaf, bounds, errors=errors)


def rounded(spec: QuantSpec, bits: int, scale: float, other: float, x: np.ndarray) -> np.ndarray:
    """In numpy, one number at a time."""

    def one(v: float) -> float:
        if spec.quantizer.name == "twin":
            return reference.twin_fake_quant(v, scale, int(other), bits, spec.signed)
        if spec.quantizer.name.startswith("shifted_log"):
            return reference.shifted_log_fake_quant(v, scale, int(other), bits)
        q = round(-np.log2(v) / scale)
        return 2.0 ** (-scale * q) if q < 2**bits - 1 else 0.0

    return np.array([one(float(v)) for v in x.ravel()]).reshape(x.shape)


def grid(spec: QuantSpec, high: float) -> list[tuple[float, float]]:
    """Of four bits."""
    kept = [high * 2 ** (-i / 4) for i in range(12)]
    if spec.quantizer.name == "log":
        return [(1 / n, 0) for n in range(1, 7)]
    if spec.quantizer.name.startswith("shifted_log"):
        fixed = {"shifted_log2": [1], "shifted_log_sqrt2": [2]}
        return [(top + 0.17, n) for n in fixed.get(spec.quantizer.name, range(1, 7)) for top in kept]
    return [(top / 7 / 2**n, n) for n in range(12) for top in kept]


@pytest.mark.parametrize(
    ("quantizer", "signed", "softmax"),
    [
        ("log", False, True),
        ("twin", False, True),
        ("twin", True, False),
        ("shifted_log", False, False),
        ("shifted_log2", False, False),
        ("shifted_log_sqrt2", False, False),
    ],
)
def test_the_best_of_the_grid_is_chosen(quantizer: str, signed: bool, softmax: bool) -> None:
    x = SOFTMAX if softmax else GELU
    spec = QuantSpec(signed=signed, quantizer=QUANTIZERS[quantizer])
    got = observe(spec, 4, x, chunk=2)
    assert got.scale.shape == got.zero_point.shape == (1, 1, 1)

    def error(scale: float, other: float) -> float:
        difference = rounded(spec, 4, scale, other, x) - x
        squares = float((difference**2).sum())
        return squares + (float((difference.sum(-1) ** 2).sum()) if softmax else 0.0)

    options = grid(spec, float(x.max()))
    assert len(options) == spec.quantizer.num_candidates(spec)
    chosen = float(got.scale.squeeze()), float(got.zero_point.squeeze())
    assert min(abs(s / chosen[0] - 1) + abs(z - chosen[1]) for s, z in options) < 1e-5
    assert error(*chosen) <= min(error(*option) for option in options) * (1 + 1e-4)


def test_twin_ranges_keep_what_one_range_loses_below_zero() -> None:
    one, two = QuantSpec(observer=OBSERVERS["omse"]), QuantSpec(signed=True, quantizer=TWIN)
    below = GELU[GELU < 0]
    errors = []
    for spec in (one, two):
        got = fake_quant(spec, observe(spec, 6, GELU, 4), jnp.asarray(below)[None, None])
        errors.append(float(((np.asarray(got).ravel() - below) ** 2).sum()))
    assert errors[1] < 0.2 * errors[0]


def test_the_config_puts_them_where_softmax_and_gelu_are(tiny: Tiny) -> None:
    plain = dict(resolve(QuantConfig(activation_observer="pow2"), tiny.sites).specs)
    config = QuantConfig(activation_observer="pow2", softmax_quantizer="twin", gelu_quantizer=TWIN)
    specs = dict(resolve(config, tiny.sites).specs)
    changed = {site for site in specs if specs[site] != plain[site]}
    assert changed == {"blocks/attn/softmax", "blocks/mlp/gelu"}
    assert specs["blocks/mlp/gelu"] == QuantSpec(signed=True, quantizer=TWIN)
    assert specs["blocks/attn/softmax"] == QuantSpec(quantizer=TWIN)
    assert plain["blocks/mlp/gelu"].per_channel  # with a factor for each channel, as long as it is uniform
