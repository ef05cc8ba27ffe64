"""The `percentile` observer: quantiles of each batch, smoothed over the batches."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from evolq_jax.quant.observers.ema import Ema
from evolq_jax.quant.quantizers.base import Range
from evolq_jax.typing import Array

if TYPE_CHECKING:
    from evolq_jax.quant.spec import QuantSpec


@dataclass(frozen=True)
class Percentile(Ema):
    """Quantiles of the whole batch, though it is seen in chunks: these hand on their tails.

    Attributes:
      quantile: of the high end; the low end has one minus it.
    """

    name: str = "percentile"
    does: str = "leaves the outermost values of each batch out, and averages as `ema` does"
    keeps_extremes: bool = False
    quantile: float = 0.99999

    def chunk_range(self, spec: QuantSpec, shape: tuple[int, ...], x: Array) -> Range:
        """The smallest and the largest values, as many as can reach the batch's quantiles."""
        axes = self.range_axes(spec, x.ndim)
        kept_shape = tuple(1 if axis in axes else size for axis, size in enumerate(x.shape))
        flat = x.reshape(-1, math.prod(kept_shape)).T
        tail = min(math.ceil(self._position(spec, shape)[0]) + 1, flat.shape[-1])

        def extremes(rows: Array) -> Array:
            return jax.lax.top_k(rows, tail)[0].T.reshape(tail, *kept_shape)

        return -extremes(-flat), extremes(flat)

    def batch_range(self, spec: QuantSpec, shape: tuple[int, ...], chunks: Range) -> Range:
        """Interpolated between the two neighbours of each quantile."""
        position, count = self._position(spec, shape)
        below, weight = math.floor(position), position - math.floor(position)
        above = min(below + 1, count - 1)

        def interpolate(ordered: Array) -> Array:
            return (1 - weight) * ordered[below] + weight * ordered[above]

        low, high = chunks
        return interpolate(jnp.sort(low, axis=0)), interpolate(-jnp.sort(-high, axis=0))

    def _position(self, spec: QuantSpec, shape: tuple[int, ...]) -> tuple[float, int]:
        """Where the quantile lies from its end, among so many values that share a range."""
        count = math.prod(shape[axis] for axis in self.range_axes(spec, len(shape)))
        return (1.0 - self.quantile) * (count - 1), count


PERCENTILE = Percentile()
