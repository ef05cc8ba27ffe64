"""The `omse_ends` observer: searches both ends of a range, that is scale and zero point.

`omse` shrinks a range as a whole. But values can lean to one side, as after GELU or in a row of a weight.
Then the best range leans too. AdaLog (Wu et al., 2407.12951) searches scale and zero point, coarse first.
Here the grid is made of the two ends; each is a share of the observed end. The fine grid lies around the
best point of the coarse one. Zero stays exact and zero points are integers, so nothing changes for integer
execution.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from evolq_jax.quant.observers.base import Observer
from evolq_jax.quant.qparams import SiteQParams
from evolq_jax.quant.quantizers.base import Range
from evolq_jax.quant.quantizers.uniform import range_qparams
from evolq_jax.typing import Array

if TYPE_CHECKING:
    from evolq_jax.quant.spec import QuantSpec

RATIO = 0.8  # between neighbours of the coarse grid
COARSE = 9  # shares 1, 0.8, ..., 0.17 of each end
FINE = 7  # quarters of a coarse step, on either side of the best
SIZES = (COARSE, FINE)  # of a side of each grid


@dataclass(frozen=True)
class OmseEnds(Observer):
    """The two ends with the least squared error, on a coarse grid and then on a fine one around its best."""

    name: str = "omse_ends"
    does: str = "moves each end of the range to where the squared error is least"
    num_grids: int = 2
    channels_apart: bool = True

    def num_candidates(self, spec: QuantSpec, grid: int = 0) -> int:
        """The number of ranges in a grid. A symmetric range has one end."""
        return SIZES[grid] ** (1 if spec.signed else 2)

    def candidate(
        self, spec: QuantSpec, bits: Array, bounds: Range, index: Array, *, grid: int = 0
    ) -> SiteQParams:
        """The numbers of `candidate_range`."""
        return range_qparams(spec, bits, candidate_range(spec, bounds, index, grid=grid))

    def narrow(self, spec: QuantSpec, bounds: Range, errors: Array) -> Range:
        """The range that was best in the coarse grid."""
        return candidate_range(spec, bounds, self.best(errors), grid=0)


def candidate_range(spec: QuantSpec, bounds: Range, index: Array, *, grid: int) -> Range:
    """The i-th range: inside `bounds` in the coarse grid (0), around them in the fine one (1)."""
    size = SIZES[grid]
    steps = index % size, index % size if spec.signed else index // size
    low, high = (RATIO ** ((step - FINE // 2) / 4 if grid else 1.0 * step) for step in steps)
    return bounds[0] * low, bounds[1] * high


OMSE_ENDS = OmseEnds()
