"""Numbers that say how jagged lines of a loss are; docs/landscapes.md has the formulas.

All functions take lines [..., T], sampled at equal steps, and give an array of the leading shape. A line
with a NaN or an infinity gives NaN. The lines of a plane are its rows and its columns: `lines_of_plane`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

STRIDES = (1, 2, 4, 8)
FEWEST_POINTS = 5  # of a subsampled line, else what is counted is the sampling


@dataclass(frozen=True)
class Spread:
    """A number over lines.

    Attributes:
      mean: None: no line has the number.
      std: standard deviation (n - 1); None: fewer than two lines have the number.
      lines: how many have it.
    """

    mean: float | None
    std: float | None
    lines: int


@dataclass(frozen=True)
class Jaggedness:
    """Every number of `measure` for one loss, over all lines, by stride of the grid."""

    range: dict[int, Spread]
    minima_per_unit: dict[int, Spread]
    total_variation: dict[int, Spread]
    roughness: dict[int, Spread]
    autocorrelation_length: dict[int, Spread]
    lipschitz: dict[int, Spread]


def value_range(lines: np.ndarray) -> np.ndarray:
    """Largest minus smallest value, in the loss's unit."""
    return _where_finite(lines, np.ptp(lines, axis=-1))


def minima_per_unit(lines: np.ndarray, spacing: float) -> np.ndarray:
    """Local minima inside the line, per unit of the coordinate. A flat bottom counts once.

    A smooth bowl of length 2 with its minimum inside has 0.5.
    """
    flat = lines.reshape(-1, lines.shape[-1])
    counts = np.array([_count_minima(line) for line in flat]).reshape(lines.shape[:-1])
    return _where_finite(lines, counts / (spacing * (lines.shape[-1] - 1)))


def _count_minima(line: np.ndarray) -> float:
    signs = np.sign(np.diff(line))
    signs = signs[signs != 0]  # a plateau is as its two ends
    return float(np.sum((signs[:-1] < 0) & (signs[1:] > 0)))


def total_variation(lines: np.ndarray) -> np.ndarray:
    """Sum of absolute differences, divided by the range: 1 for a monotone line, at most 2 for one valley."""
    return _over_range(lines, np.abs(np.diff(lines)).sum(-1))


def roughness(lines: np.ndarray) -> np.ndarray:
    """Mean absolute second difference between grid points, divided by the range.

    For a smooth curve it falls with the square of the spacing; for a jagged curve it does not.
    """
    return _over_range(lines, np.abs(np.diff(lines, n=2)).mean(-1))


def autocorrelation_length(lines: np.ndarray, spacing: float) -> np.ndarray:
    """First lag, in units of the coordinate, at which the autocorrelation falls below 1/e.

    The autocorrelation is that of the line minus its mean (Weinberger 1990), interpolated between lags. A
    constant line gives NaN.
    """
    flat = lines.reshape(-1, lines.shape[-1])
    lengths = np.array([_correlation_lag(line) for line in flat]).reshape(lines.shape[:-1])
    return _where_finite(lines, lengths * spacing)


def _correlation_lag(line: np.ndarray) -> float:
    centred = line - line.mean()
    power = float(centred @ centred)
    if not power > 0:
        return np.nan
    correlation = np.correlate(centred, centred, "full")[len(line) - 1 :] / power
    # The products of all lags sum to nothing or less: it falls below 1/e somewhere.
    after = int(np.argmax(correlation < 1 / np.e))
    before = after - 1
    return before + (correlation[before] - 1 / np.e) / (correlation[before] - correlation[after])


def lipschitz(lines: np.ndarray, spacing: float) -> np.ndarray:
    """Largest slope between neighbours, in the loss's unit per unit of the coordinate: a lower bound."""
    return _where_finite(lines, np.abs(np.diff(lines)).max(-1) / spacing)


def measure(lines: np.ndarray, spacing: float) -> dict[str, np.ndarray]:
    """All numbers of lines [..., T], by name: [...] each. `spacing` is the step between neighbours."""
    lines = np.asarray(lines, np.float64)
    numbers: Mapping[str, Callable[[], np.ndarray]] = {
        "range": lambda: value_range(lines),
        "minima_per_unit": lambda: minima_per_unit(lines, spacing),
        "total_variation": lambda: total_variation(lines),
        "roughness": lambda: roughness(lines),
        "autocorrelation_length": lambda: autocorrelation_length(lines, spacing),
        "lipschitz": lambda: lipschitz(lines, spacing),
    }
    with np.errstate(invalid="ignore", divide="ignore"):
        return {name: compute() for name, compute in numbers.items()}


def by_resolution(
    lines: np.ndarray, spacing: float, strides: Sequence[int] = STRIDES
) -> dict[int, dict[str, np.ndarray]]:
    """`measure` of every `stride`-th point, for the strides that leave enough points.

    On a finer grid a smooth landscape keeps its minima per unit; a jagged one shows more.
    """
    enough = [s for s in strides if len(range(0, lines.shape[-1], s)) >= FEWEST_POINTS or s == strides[0]]
    return {stride: measure(lines[..., ::stride], spacing * stride) for stride in enough}


def summarise(numbers: Mapping[int, Mapping[str, np.ndarray]]) -> Jaggedness:
    """What `by_resolution` gives for the lines of one loss, over all lines."""
    names = next(iter(numbers.values()))
    return Jaggedness(
        **{name: {stride: spread(values[name]) for stride, values in numbers.items()} for name in names}
    )


def spread(values: np.ndarray) -> Spread:
    """Over the lines that have the number."""
    finite = np.asarray(values, np.float64).ravel()
    finite = finite[np.isfinite(finite)]
    return Spread(
        mean=float(finite.mean()) if len(finite) else None,
        std=float(finite.std(ddof=1)) if len(finite) > 1 else None,
        lines=len(finite),
    )


def lines_of_plane(plane: np.ndarray) -> np.ndarray:
    """The rows, then the columns, of a plane [..., T, T]: [..., 2T, T]."""
    return np.concatenate([plane, np.swapaxes(plane, -1, -2)], axis=-2)


def _over_range(lines: np.ndarray, values: np.ndarray) -> np.ndarray:
    """A flat line is not jagged: 0."""
    extent = np.ptp(lines, axis=-1)
    return _where_finite(lines, np.where(extent > 0, values / np.where(extent > 0, extent, 1.0), 0.0))


def _where_finite(lines: np.ndarray, values: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(lines).all(-1), values, np.nan)
