"""Observers: tensors -> range -> scale and zero point, vectorised over channels and candidates.

An observer works in two steps. The *range* step reduces every calibration batch to a low and a high
end and combines them over batches. The *score* step (omse and ptf only) takes the last batch, as the
official code does, and measures the squared error of each candidate quantizer; omse_ends does so twice, the
second time on a fine grid around the first one's best. Reductions over chunks of a batch add up, so memory is
bounded by the chunk.
"""

import math
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from evolq_jax.calibration.observers import ends, nonuniform, power_of_two
from evolq_jax.quant.qparams import SiteQParams
from evolq_jax.quant.quantizers.uniform import int_range
from evolq_jax.quant.spec import QuantSpec
from evolq_jax.typing import Array

EPS = 1e-7  # smallest scale, float32's resolution as in the official code
SMOOTHING = 0.01  # of ema and percentile, per batch
QUANTILE = 0.99999
SHRINKS = 1.0 - 0.01 * np.arange(90, dtype=np.float32)
PTF_FACTORS = np.array([1.0, 2.0, 4.0, 8.0], np.float32)
ADDED_ROWS = 16
SCORED = ("omse", "omse_shared", "omse_ends", "ptf", "pow2")

Range = tuple[Array, Array]  # low, high: as scales, size 1 on every reduced axis


def is_scored(spec: QuantSpec) -> bool:
    """Whether candidates are compared by their error."""
    return spec.quantizer.num_candidates(spec) > 0 or spec.observer in SCORED


def has_fine_grid(spec: QuantSpec) -> bool:
    """Whether candidates are compared a second time, around the best."""
    return not spec.quantizer.num_candidates(spec) and spec.observer == "omse_ends"


def reduced_axes(spec: QuantSpec, ndim: int) -> tuple[int, ...]:
    """The axes that share one range: all, or all but the last. ptf takes its range over all."""
    keeps_channels = spec.per_channel and spec.observer != "ptf"
    return tuple(range(ndim - 1 if keeps_channels else ndim))


def tail_size(spec: QuantSpec, shape: tuple[int, ...]) -> int:
    """How many extreme values of a batch of this shape hold its `QUANTILE` (percentile observer)."""
    count = math.prod(shape[axis] for axis in reduced_axes(spec, len(shape)))
    return math.ceil((1.0 - QUANTILE) * (count - 1)) + 1


def chunk_range(spec: QuantSpec, tail: int, x: Array) -> Range:
    """One chunk's contribution: its extremes, with the `tail` largest and smallest for percentile.

    Results have a leading axis of size 1 or `tail`, over which `batch_range` combines chunks.
    """
    axes = reduced_axes(spec, x.ndim)
    if spec.observer != "percentile":
        return x.min(axes, keepdims=True)[None], x.max(axes, keepdims=True)[None]
    kept_shape = tuple(1 if axis in axes else size for axis, size in enumerate(x.shape))
    flat = x.reshape(-1, math.prod(kept_shape)).T
    tail = min(tail, flat.shape[-1])

    def extremes(rows: Array) -> Array:
        return jax.lax.top_k(rows, tail)[0].T.reshape(tail, *kept_shape)

    return -extremes(-flat), extremes(flat)


def batch_range(spec: QuantSpec, shape: tuple[int, ...], chunks: Range) -> Range:
    """One batch's range from its chunks' contributions [chunks * tail, ...]; `shape` is the batch's."""
    low, high = chunks
    if spec.observer != "percentile":
        return low.min(0), high.max(0)
    count = math.prod(shape[axis] for axis in reduced_axes(spec, len(shape)))
    position = (1.0 - QUANTILE) * (count - 1)  # from either end, between two neighbours
    below, weight = math.floor(position), position - math.floor(position)
    above = min(below + 1, count - 1)

    def interpolate(ordered: Array) -> Array:
        return (1 - weight) * ordered[below] + weight * ordered[above]

    return interpolate(jnp.sort(low, axis=0)), interpolate(-jnp.sort(-high, axis=0))


def combine_ranges(spec: QuantSpec, batches: Range) -> Range:
    """The range over all batches [batches, ...]: the extremes, or smoothed in the batches' order."""
    low, high = batches
    if spec.observer not in ("ema", "percentile"):
        return low.min(0), high.max(0)

    def smooth(running: Array, new: Array) -> tuple[Array, None]:
        return running + SMOOTHING * (new - running), None

    smoothed_low, smoothed_high = (jax.lax.scan(smooth, ends[0], ends[1:])[0] for ends in (low, high))
    return smoothed_low, smoothed_high


def range_qparams(spec: QuantSpec, bits: Array, bounds: Range) -> SiteQParams:
    """Affine (`uint`) or symmetric (`int`) scale and zero point of a range widened to hold zero.

    The reciprocal is what XLA makes of a division by a constant, so that ranges found with traced bits are
    those found when bits were constants.
    """
    low, high = jnp.minimum(bounds[0], 0.0), jnp.maximum(bounds[1], 0.0)
    qmin, qmax = int_range(spec.signed, bits)
    if spec.signed:
        scale = jnp.maximum(jnp.maximum(-low, high) * (1.0 / ((qmax - qmin) / 2)), EPS)
        return SiteQParams(scale, jnp.zeros_like(scale), bits)
    scale = jnp.maximum((high - low) * (1.0 / (qmax - qmin)), EPS)
    return SiteQParams(scale, jnp.clip(qmin - jnp.round(low / scale), qmin, qmax), bits)


def candidates(
    spec: QuantSpec, bits: Array, bounds: Range, fine: bool = False
) -> Callable[[Array], SiteQParams]:
    """The quantizer of the i-th candidate: a shrink of the range, power-of-two factors, or another shape."""
    if spec.quantizer.num_candidates(spec):
        return partial(spec.quantizer.candidate, spec, bits, bounds)

    if spec.observer == "omse_ends":
        return lambda index: range_qparams(spec, bits, ends.candidate(spec, bounds, index, fine))

    def shrunk(index: Array) -> SiteQParams:
        low, high = bounds
        shrink = jnp.asarray(SHRINKS)[index]
        return range_qparams(spec, bits, (low * shrink, high * shrink))

    def factored(index: Array) -> SiteQParams:
        coarsest = range_qparams(spec, bits, bounds)
        scale = coarsest.scale / PTF_FACTORS[-1] * jnp.asarray(PTF_FACTORS)[index]
        return coarsest._replace(scale=scale)

    if spec.observer == "pow2":
        return partial(power_of_two.candidate, spec, bits, bounds)
    return factored if spec.observer == "ptf" else shrunk


def num_candidates(spec: QuantSpec, fine: bool = False) -> int:
    """How many quantizers the score step compares."""
    if spec.quantizer.num_candidates(spec):
        return spec.quantizer.num_candidates(spec)
    if spec.observer == "omse_ends":
        return ends.num_candidates(spec, fine)
    others = {"ptf": len(PTF_FACTORS), "pow2": power_of_two.NUM_CANDIDATES}
    return others.get(spec.observer, len(SHRINKS))


def chunk_errors(
    spec: QuantSpec,
    bits: Array,
    bounds: Range,
    x: Array,
    importance: Array | None = None,
    *,
    fine: bool = False,
) -> Array:
    """Squared error of every candidate on one chunk: [candidates, *(1, ..., 1, 1 or K)]; chunks add up.

    `importance` has the shape of `x`, and weighs the squared error of each of its values.

    Most of calibration's time is spent here, so this is laid out for XLA on CPU: the rows are summed
    `ADDED_ROWS` at a time by plain additions, which keeps each candidate one loop over the tensor with
    few stores (a reduction would first write rounded values out; measured 3 to 4 times slower).
    """
    if spec.quantizer.num_candidates(spec):
        return nonuniform.chunk_errors(spec, bits, bounds, x, importance)
    qmin, qmax = (end.reshape(1, 1) for end in int_range(spec.signed, bits))
    channels = x.shape[-1] if spec.per_channel else 1

    def in_rows(x: Array) -> Array:
        rows = x.reshape(-1, channels)
        rows = jnp.pad(rows, ((0, -len(rows) % ADDED_ROWS), (0, 0)))  # zero has no error in any candidate
        return rows.reshape(ADDED_ROWS, -1, channels)

    rows = in_rows(x)
    weights = [None] * ADDED_ROWS if importance is None else in_rows(importance)
    quantizers = jax.vmap(candidates(spec, bits, bounds, fine))(jnp.arange(num_candidates(spec, fine)))

    def squared_steps(quantizer: SiteQParams) -> Array:
        """Sums of squared errors in steps, where a value's is its distance from an integer in range."""
        scale, zero_point = (leaf.reshape(1, -1) for leaf in (quantizer.scale, quantizer.zero_point))
        total = jnp.zeros(rows.shape[1:])
        for row, weight in zip(rows, weights, strict=True):
            steps = row * (1.0 / scale) + zero_point
            nearest = jnp.round(steps)
            nearest = jnp.where(nearest > qmin, nearest, qmin)  # a fifth faster here than clip
            nearest = jnp.where(nearest < qmax, nearest, qmax)
            squares = (nearest - steps) ** 2
            total += squares if weight is None else weight * squares
        return total

    sums = jax.lax.map(squared_steps, quantizers).sum(1)
    errors = quantizers.scale**2 * sums.reshape(-1, *[1] * (x.ndim - 1), channels)
    return errors.sum(-1, keepdims=True) if spec.observer == "omse_shared" else errors


def narrowed(spec: QuantSpec, bounds: Range, errors: Array) -> Range:
    """The range that was best in the coarse grid: what the fine grid lies around."""
    return ends.candidate(spec, bounds, jnp.argmin(errors, axis=0), fine=False)


def finish(
    spec: QuantSpec, bits: Array, bounds: Range, errors: Array | None, *, fine: bool = False
) -> SiteQParams:
    """The quantizer of a range, or of the candidate with the least error (the first among equals)."""
    if errors is None:
        return range_qparams(spec, bits, bounds)
    by_powers = spec.observer == "pow2" and not spec.quantizer.num_candidates(spec)
    best = power_of_two.choose(errors) if by_powers else jnp.argmin(errors, axis=0)
    return candidates(spec, bits, bounds, fine)(best)
