"""The `omse_ends` observer: searches both ends of a range, that is scale and zero point.

`omse` shrinks a range as a whole. But values can lean to one side, as after GELU or in a row of a weight.
Then the best range leans too. AdaLog (Wu et al., 2407.12951) searches scale and zero point, coarse first.
Here the grid is made of the two ends; each is a share of the observed end. The fine grid lies around the
best point of the coarse one. Zero stays exact and zero points are integers, so nothing changes for integer
execution.
"""

from evolq_jax.quant.spec import QuantSpec
from evolq_jax.typing import Array

Range = tuple[Array, Array]

RATIO = 0.8  # between neighbours of the coarse grid
COARSE = 9  # shares 1, 0.8, ..., 0.17 of each end
FINE = 7  # quarters of a coarse step, on either side of the best


def num_candidates(spec: QuantSpec, fine: bool) -> int:
    """The number of ranges that are compared. A symmetric range has one end."""
    return (FINE if fine else COARSE) ** (1 if spec.signed else 2)


def candidate(spec: QuantSpec, bounds: Range, index: Array, fine: bool) -> Range:
    """The i-th range: around `bounds` in the fine grid, inside `bounds` in the coarse one."""
    size = FINE if fine else COARSE
    steps = index % size, index % size if spec.signed else index // size
    low, high = (RATIO ** ((step - FINE // 2) / 4 if fine else 1.0 * step) for step in steps)
    return bounds[0] * low, bounds[1] * high
