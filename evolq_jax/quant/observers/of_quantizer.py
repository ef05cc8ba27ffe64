"""The observer of quantizers that bring candidates of their own, whose steps are not equal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from evolq_jax.quant.observers.base import Observer
from evolq_jax.quant.observers.minmax import MINMAX
from evolq_jax.quant.qparams import SiteQParams
from evolq_jax.quant.quantizers.base import Range, fake_quant
from evolq_jax.typing import Array

if TYPE_CHECKING:
    from evolq_jax.quant.spec import QuantSpec


@dataclass(frozen=True)
class OfQuantizer(Observer):
    """Ranges are another observer's; candidates and their errors are the quantizer's.

    Attributes:
      ranges: the observer that finds ranges.
    """

    name: str = "of_quantizer"
    does: str = "compares the candidates that the quantizer brings along"
    num_grids: int = 1
    ranges: Observer = MINMAX

    def range_axes(self, spec: QuantSpec, ndim: int) -> tuple[int, ...]:
        """The other observer's."""
        return self.ranges.range_axes(spec, ndim)

    def chunk_range(self, spec: QuantSpec, shape: tuple[int, ...], x: Array) -> Range:
        """The other observer's."""
        return self.ranges.chunk_range(spec, shape, x)

    def batch_range(self, spec: QuantSpec, shape: tuple[int, ...], chunks: Range) -> Range:
        """The other observer's."""
        return self.ranges.batch_range(spec, shape, chunks)

    def combine_ranges(self, batches: Range) -> Range:
        """The other observer's."""
        return self.ranges.combine_ranges(batches)

    def num_candidates(self, spec: QuantSpec, grid: int = 0) -> int:
        """The quantizer's."""
        del grid
        return spec.quantizer.num_candidates(spec)

    def candidate(
        self, spec: QuantSpec, bits: Array, bounds: Range, index: Array, *, grid: int = 0
    ) -> SiteQParams:
        """The quantizer's."""
        del grid
        return spec.quantizer.candidate(spec, bits, bounds, index)

    def errors(self, spec: QuantSpec, candidates: SiteQParams, x: Array, importance: Array | None) -> Array:
        """What the quantizer says is an error."""
        weight, quantizer = jnp.ones_like(x) if importance is None else importance, spec.quantizer

        def error(site_qparams: SiteQParams) -> Array:
            return quantizer.error(spec, fake_quant(spec, site_qparams, x) - x, weight)

        return jax.lax.map(error, candidates)


def observer_of(spec: QuantSpec) -> Observer:
    """Who finds the numbers of a site: its own observer, with the quantizer's candidates if it has any."""
    return OfQuantizer(ranges=spec.observer) if spec.quantizer.num_candidates(spec) else spec.observer
