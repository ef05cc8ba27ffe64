"""The observers once more, in numpy, one channel and one candidate at a time."""

import numpy as np

from evolq_jax.quant.qparams import SiteQParams
from evolq_jax.quant.spec import QuantSpec
from tests.quant.reference import int_range

Pair = tuple[float, float]


def quantile_range(x: np.ndarray, quantile: float) -> Pair:
    return float(np.quantile(x, 1 - quantile)), float(np.quantile(x, quantile))


def value_range(observer: str, batches: list[np.ndarray], quantile: float = 0.99999) -> Pair:
    """Low and high over the batches of one group of values."""
    if observer not in ("ema", "percentile"):
        return min(float(b.min()) for b in batches), max(float(b.max()) for b in batches)
    ends = [
        quantile_range(b, quantile) if observer == "percentile" else (float(b.min()), float(b.max()))
        for b in batches
    ]
    low, high = ends[0]
    for new_low, new_high in ends[1:]:
        low, high = low + 0.01 * (new_low - low), high + 0.01 * (new_high - high)
    return low, high


def range_qparams(low: float, high: float, bits: int, signed: bool) -> Pair:
    low, high = min(low, 0.0), max(high, 0.0)
    qmin, qmax = int_range(bits, signed)
    if signed:
        return max(max(-low, high) / ((qmax - qmin) / 2), 1e-7), 0.0
    scale = max((high - low) / (qmax - qmin), 1e-7)
    return scale, float(min(max(qmin - round(low / scale), qmin), qmax))


def squared_error(x: np.ndarray, scale: float, zero_point: float, bits: int, signed: bool) -> float:
    qmin, qmax = int_range(bits, signed)
    x = x.astype(np.float64)
    q = np.clip(np.round(x / scale + zero_point), qmin, qmax)
    return float((((q - zero_point) * scale - x) ** 2).sum())


def shrinks(low: float, high: float, bits: int, signed: bool) -> list[Pair]:
    return [range_qparams(low * (1 - i / 100), high * (1 - i / 100), bits, signed) for i in range(90)]


def factors(low: float, high: float, bits: int) -> list[Pair]:
    scale, zero_point = range_qparams(low, high, bits, False)
    return [(scale / 8 * factor, zero_point) for factor in (1, 2, 4, 8)]


def groups(spec: QuantSpec, x: np.ndarray) -> list[np.ndarray]:
    """The values that share one scale: each channel's, or all."""
    return list(x.reshape(-1, x.shape[-1]).T) if spec.per_channel else [x.ravel()]


def check(spec: QuantSpec, batches: list[np.ndarray], site_qparams: SiteQParams) -> None:
    """That a site's scale and zero point are those of its observer on these batches.

    Where candidates compete, equal errors to rounding make the choice free: the chosen one must be a
    candidate, and as good as the best.
    """
    by_group = list(zip(*(groups(spec, b) for b in batches), strict=True))
    bits = int(site_qparams.bits.item())
    scale, zero_point = (np.broadcast_to(np.ravel(v), len(by_group)) for v in site_qparams[:2])
    observer = spec.observer.name
    spread = [value_range(observer, list(group)) for group in by_group]
    if observer == "ptf":
        spread = [(min(low for low, _ in spread), max(high for _, high in spread))] * len(by_group)
    choices: list[int] = []
    errors = np.zeros((len(by_group), 90))
    for i, (low, high) in enumerate(spread):
        if observer in ("omse", "omse_shared"):
            options = shrinks(low, high, bits, spec.signed)
        elif observer == "ptf":
            options = factors(low, high, bits)
        else:
            options = [range_qparams(low, high, bits, spec.signed)]
        table = np.array(options)
        choice = int(np.argmin(np.abs(table[:, 0] - scale[i])))
        np.testing.assert_allclose(scale[i], table[choice, 0], rtol=2e-6)
        if abs(abs(low / table[choice, 0]) % 1 - 0.5) > 1e-3:  # a tie: an image from -1 to 1 has one
            assert zero_point[i] == table[choice, 1]
        choices.append(choice)
        errors[i, : len(options)] = [
            squared_error(by_group[i][-1], s, z, bits, spec.signed) for s, z in options
        ]
        errors[i, len(options) :] = np.inf
    if observer == "omse_shared":
        assert len(set(choices)) == 1
        errors = errors.sum(0, keepdims=True).repeat(len(by_group), 0)
    for i, choice in enumerate(choices):
        assert errors[i, choice] <= errors[i].min() * (1 + 1e-4)
