"""Distributions of weights before and after quantization."""

import io

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from scipy import stats

from evolq_jax.errors import UserError
from evolq_jax.figures.picture import DPI
from evolq_jax.figures.style import COLUMN_WIDTH
from evolq_jax.landscape.weights import (
    PER_STEP,
    Distribution,
    draw_weights,
    excess_kurtosis,
    weight_distributions,
    weights_figure,
)
from evolq_jax.quant.spec import QuantSpec
from tests.numbers import numbers

SPECS = (("a/qkv/weight", QuantSpec(signed=True, per_channel=True)),)
GROUPS = {"qkv": ["*/qkv/weight"]}
SCALE = np.exp(np.random.default_rng(1).standard_normal((2, 1, 8))).astype(np.float32)
WEIGHT = (SCALE * 1.3 * np.random.default_rng(0).standard_normal((2, 500, 8))).astype(np.float32)


@pytest.fixture(scope="module")
def found() -> dict[str, Distribution]:
    params = {"a": {"qkv": {"weight": jnp.asarray(WEIGHT)}}, "head": {"weight": jnp.ones((3, 4))}}
    qparams = {"a/qkv/weight": numbers(SCALE, 0, 3, stacked=True)}
    return weight_distributions(SPECS, params, qparams, GROUPS)


def test_numbers_are_those_of_the_values(found: dict[str, Distribution]) -> None:
    one = found["qkv"]
    integers = np.clip(np.round(WEIGHT / SCALE), -4, 3)
    for prefix, values in (("", (WEIGHT, integers * SCALE)), ("steps_", (WEIGHT / SCALE, integers))):
        np.testing.assert_allclose(one[f"{prefix}std"], [v.std() for v in values], rtol=1e-5)
        want = [stats.kurtosis(v.ravel()) for v in values]
        np.testing.assert_allclose(one[f"{prefix}kurtosis"], want, rtol=1e-3, atol=1e-3)
    assert one["zeros"] == (integers == 0).mean()
    error = WEIGHT - integers * SCALE
    np.testing.assert_allclose(one["snr"], 10 * np.log10((WEIGHT**2).mean() / (error**2).mean()), rtol=1e-4)


def test_histograms_count_every_weight_once(found: dict[str, Distribution]) -> None:
    one = found["qkv"]
    for name in ("before_plain", "before_steps", "after_plain", "after_steps"):
        np.testing.assert_allclose(one[name].sum(), 1.0)
    centres = (one["edges_steps"][:-1:PER_STEP] + one["edges_steps"][PER_STEP::PER_STEP]) / 2
    integers = np.clip(np.round(WEIGHT / SCALE), -4, 3)
    np.testing.assert_allclose(one["after_steps"], [(integers == c).mean() for c in centres], atol=1e-12)
    middle = len(one["edges_plain"]) // 2
    np.testing.assert_allclose(one["edges_plain"][middle - 1 : middle + 1].sum(), 0.0, atol=1e-12)


def test_kurtosis_of_known_distributions() -> None:
    x = (np.arange(100_000) + 0.5) / 100_000
    assert excess_kurtosis(x) == pytest.approx(-1.2, abs=1e-3)
    assert excess_kurtosis(stats.norm.ppf(x)) == pytest.approx(0.0, abs=0.01)


def test_a_pattern_that_matches_nothing_is_refused() -> None:
    with pytest.raises(UserError, match="matches no quantization site"):
        weight_distributions(
            SPECS,
            {"a": {"qkv": {"weight": jnp.asarray(WEIGHT)}}},
            {"a/qkv/weight": numbers(SCALE, 0, 3, stacked=True)},
            {"head": ["head/weight"]},
        )


def test_the_picture_fits_a_column(found: dict[str, Distribution]) -> None:
    files = dict(draw_weights(found, "weights"))
    assert sorted(files) == ["weights.pdf", "weights.png", "weights.svg"]
    width = Image.open(io.BytesIO(files["weights.png"])).width / DPI
    assert width == pytest.approx(COLUMN_WIDTH, abs=0.01)
    assert files == dict(draw_weights(found, "weights"))
    figure = weights_figure(found)
    assert [axes.get_xlabel() for axes in figure.axes] == ["weight", "weight / its channel's scale"]
