"""What an observer is: it turns data into a site's numbers, first a range, then the best of some candidates.

The *range* step reduces each calibration batch to a low and a high end, and combines these over the batches.
The *score* step, which only some observers have, takes the last batch, as the official code does. It measures
the error of each candidate for the site's numbers. Both steps see a batch in chunks of images, so memory is
bounded by the chunk.

To add an observer, subclass `Observer` as a frozen dataclass, change the steps that differ, and put an
instance into a config or a rule in place of a name.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NoReturn

import jax
import jax.numpy as jnp

from evolq_jax.named import only_name_recorded
from evolq_jax.quant.observers.errors import squared_errors
from evolq_jax.quant.qparams import SiteQParams
from evolq_jax.quant.quantizers.base import Range
from evolq_jax.quant.quantizers.uniform import range_qparams
from evolq_jax.typing import Array

if TYPE_CHECKING:
    from evolq_jax.quant.spec import QuantSpec


@dataclass(frozen=True)
class Observer:
    """The range from the least to the largest value. Others change some of its steps.

    Its methods are pure functions, and are traced. `spec` is the site's, `bits` its number of bits
    [1, ..., 1], and `bounds` a range whose ends have the shape of the site's scale.

    Attributes:
      name: what configs call it.
      does: what it does, in one sentence without a full stop.
      by_channel: whether it gives an activation a power of two for each channel. Where channels can have
        none, `minmax` takes its place.
      keeps_extremes: whether a range follows from the extremes: a sample that holds them has the same.
      num_grids: how often candidates are compared. Each grid after the first lies around the best candidate
        of the one before.
      channels_apart: whether, with a scale for each channel, a channel's numbers follow from it alone.
    """

    name: str
    does: str
    by_channel: bool = False
    keeps_extremes: bool = True
    num_grids: int = 0
    channels_apart: bool = False

    def range_axes(self, spec: QuantSpec, ndim: int) -> tuple[int, ...]:
        """The axes that share one range: all, or all but the last."""
        return tuple(range(ndim - 1 if spec.per_channel else ndim))

    def chunk_range(self, spec: QuantSpec, shape: tuple[int, ...], x: Array) -> Range:
        """What a chunk of a batch adds to the batch's range, here its extremes.

        Args:
          spec: the site's.
          shape: the batch's.
          x: the chunk.

        Returns:
          Low and high values with a leading axis, along which `batch_range` gets those of all chunks.
        """
        del shape
        axes = self.range_axes(spec, x.ndim)
        return x.min(axes, keepdims=True)[None], x.max(axes, keepdims=True)[None]

    def batch_range(self, spec: QuantSpec, shape: tuple[int, ...], chunks: Range) -> Range:
        """The range of a batch of this shape, from what its chunks add [chunks * n, ...]."""
        del spec, shape
        low, high = chunks
        return low.min(0), high.max(0)

    def combine_ranges(self, batches: Range) -> Range:
        """The range over all batches [batches, ...], here their extremes."""
        low, high = batches
        return low.min(0), high.max(0)

    def num_candidates(self, spec: QuantSpec, grid: int = 0) -> int:
        """How many candidates a grid has."""
        raise NotImplementedError(f"the observer '{self.name}' has no candidates")

    def candidate(
        self, spec: QuantSpec, bits: Array, bounds: Range, index: Array, *, grid: int = 0
    ) -> SiteQParams:
        """The numbers of the candidate `index` (traced, [] or one for each channel)."""
        raise NotImplementedError(f"the observer '{self.name}' has no candidates")

    def chunk_errors(
        self,
        spec: QuantSpec,
        bits: Array,
        bounds: Range,
        x: Array,
        *,
        importance: Array | None = None,
        grid: int = 0,
    ) -> Array:
        """The error of each candidate on one chunk; those of a batch's chunks add up.

        Args:
          spec: the site's.
          bits: the site's.
          bounds: what the grid is made of.
          x: the chunk.
          importance: weighs the squared error of each value of `x`; None: all alike.
          grid: which grid.

        Returns:
          [candidates, 1, ..., 1], or [candidates, 1, ..., K] where channels choose for themselves.
        """
        candidate = partial(self.candidate, spec, bits, bounds, grid=grid)
        found = jax.vmap(candidate)(jnp.arange(self.num_candidates(spec, grid)))
        return self.errors(spec, found, x, importance)

    def errors(self, spec: QuantSpec, candidates: SiteQParams, x: Array, importance: Array | None) -> Array:
        """The same for candidates that are there, a leading axis [candidates] on every leaf."""
        return squared_errors(spec, candidates, x, importance)

    def best(self, errors: Array) -> Array:
        """The index of the candidate with the least error, the first among equals."""
        return jnp.argmin(errors, axis=0)

    def narrow(self, spec: QuantSpec, bounds: Range, errors: Array) -> Range:
        """What the next grid is made of, given the errors of this one."""
        del spec, errors
        return bounds

    def qparams(
        self, spec: QuantSpec, bits: Array, bounds: Range, *, errors: Array | None = None, grid: int = 0
    ) -> SiteQParams:
        """The site's numbers: those of the best candidate, or of the range where none were compared."""
        if errors is None:
            return range_qparams(spec, bits, bounds)
        return self.candidate(spec, bits, bounds, self.best(errors), grid=grid)


@dataclass(frozen=True)
class RecordedObserver(Observer):
    """Stands in for an observer whose name alone is recorded. Whatever would run it is refused."""

    does: str = "is recorded by its name alone"

    def range_axes(self, spec: QuantSpec, ndim: int) -> NoReturn:
        """Refuses."""
        raise only_name_recorded(self.name, "observer")


def recorded_observer(name: str) -> Observer:
    """Stands in for an observer whose name alone is recorded."""
    return RecordedObserver(name)
