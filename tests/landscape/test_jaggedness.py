import numpy as np
import pytest

from evolq_jax.landscape.jaggedness import (
    Spread,
    autocorrelation_length,
    by_resolution,
    lines_of_plane,
    lipschitz,
    measure,
    minima_per_unit,
    roughness,
    spread,
    total_variation,
    value_range,
)

T = np.linspace(-1, 1, 101)
STEP = 0.02
BOWL = 3.0 + 5.0 * T**2
WAVES = np.cos(10 * np.pi * T)  # five periods a unit


def test_a_bowl_has_the_numbers_that_its_formula_gives() -> None:
    found = measure(BOWL, STEP)
    assert found["range"] == pytest.approx(5.0)
    assert found["minima_per_unit"] == pytest.approx(1 / 2)
    assert found["total_variation"] == pytest.approx(2.0)
    assert found["roughness"] == pytest.approx(2 * 5.0 * STEP**2 / 5.0)
    assert found["lipschitz"] == pytest.approx(5.0 * (1 - 0.98**2) / STEP)


def test_waves_are_counted_per_unit() -> None:
    assert minima_per_unit(WAVES, STEP) == pytest.approx(5.0)
    assert total_variation(WAVES) == pytest.approx(2 * 10)
    assert lipschitz(WAVES, STEP) == pytest.approx(10 * np.pi, rel=0.1)
    # of a long wave the autocorrelation is a cosine: below 1/e at arccos(1/e) of the phase
    assert autocorrelation_length(WAVES, STEP) == pytest.approx(np.arccos(1 / np.e) / (10 * np.pi), rel=0.05)


def test_white_noise_is_uncorrelated_from_the_first_lag() -> None:
    noise = np.random.default_rng(0).standard_normal((20, 401))
    assert (autocorrelation_length(noise, 0.5) < 0.5).all()
    assert minima_per_unit(noise, 1.0).mean() == pytest.approx(1 / 3, rel=0.1)  # of three, one is lowest


@pytest.mark.parametrize(
    ("line", "minima"),
    [
        ([2.0, 1.0, 1.0, 1.0, 2.0], 1),  # a flat bottom
        ([2.0, 1.0, 1.0, 0.0, 1.0], 1),  # a step on the way down
        ([0.0, 1.0, 2.0, 1.0, 0.0], 0),  # the ends do not count
        ([1.0, 1.0, 1.0, 1.0, 1.0], 0),
        ([1.0, 0.0, 1.0, 0.0, 1.0], 2),
    ],
)
def test_minima_of_short_lines(line: list[float], minima: int) -> None:
    assert minima_per_unit(np.array(line), 0.5) == pytest.approx(minima / 2.0)


def test_a_constant_line_is_not_jagged() -> None:
    found = measure(np.full((2, 9), 4.0), 1.0)
    for name in ("range", "minima_per_unit", "total_variation", "roughness", "lipschitz"):
        assert (found[name] == 0).all()
    assert np.isnan(found["autocorrelation_length"]).all()


def test_a_line_with_a_hole_has_no_numbers() -> None:
    lines = np.stack([BOWL, BOWL])
    lines[1, 7] = np.nan
    for values in measure(lines, STEP).values():
        assert np.isfinite(values[0])
        assert np.isnan(values[1])


def test_numbers_relative_to_the_range_do_not_see_units() -> None:
    for number in (total_variation, roughness):
        assert number(100 * WAVES - 7) == pytest.approx(number(WAVES))
    assert value_range(100 * WAVES - 7) == pytest.approx(100 * value_range(WAVES))


def test_a_finer_grid_finds_more_minima_in_noise_and_no_more_in_a_bowl() -> None:
    noise = np.random.default_rng(1).standard_normal((50, 101))
    smooth, jagged = by_resolution(BOWL, STEP), by_resolution(noise, STEP)
    assert list(smooth) == [1, 2, 4, 8]
    for stride in (1, 2, 4, 8):
        assert smooth[stride]["minima_per_unit"] == pytest.approx(0.5, rel=0.05)
    assert smooth[2]["roughness"] == pytest.approx(4 * smooth[1]["roughness"])
    means = [jagged[stride]["minima_per_unit"].mean() for stride in (1, 2, 4, 8)]
    assert means[0] > 1.7 * means[1] > 1.7**2 * means[2]
    assert jagged[2]["roughness"].mean() == pytest.approx(jagged[1]["roughness"].mean(), rel=0.3)


def test_short_lines_are_not_subsampled() -> None:
    assert list(by_resolution(np.arange(9.0), 1.0)) == [1, 2]
    assert list(by_resolution(np.arange(3.0), 1.0)) == [1]


def test_spread_over_lines() -> None:
    two = spread(np.array([1.0, 3.0, np.nan]))
    assert (two.mean, two.std, two.lines) == (2.0, pytest.approx(2**0.5), 2)
    assert spread(np.array([np.nan])) == Spread(None, None, 0)
    assert spread(np.array([1.0])) == Spread(1.0, None, 1)


def test_a_plane_is_its_rows_and_columns() -> None:
    plane = np.arange(9.0).reshape(1, 3, 3)
    lines = lines_of_plane(plane)
    assert lines.shape == (1, 6, 3)
    np.testing.assert_array_equal(lines[0, 4], [1.0, 4.0, 7.0])
