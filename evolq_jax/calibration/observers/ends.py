"""The `omse_ends` observer: both ends of the range searched, which is to say scale and zero point.

`omse` shrinks a range as a whole. Where values lean to one side, as after GELU or in a row of a weight, the
best range leans too: AdaLog (Wu et al., 2407.12951) searches scale and zero point, coarse
first. Here the grid is of the two ends, each a share of what was observed; the fine one lies around the
coarse one's best. Zero stays exact, and zero points are integers: nothing changes for integer execution.
"""

from evolq_jax.quant.spec import QuantSpec
from evolq_jax.typing import Array

Range = tuple[Array, Array]

RATIO = 0.8  # between neighbours of the coarse grid
COARSE = 9  # shares 1, 0.8, ..., 0.17 of each end
FINE = 7  # quarters of a coarse step, on either side of the best


def num_candidates(spec: QuantSpec, fine: bool) -> int:
    """How many ranges are compared; symmetric ones have one end."""
    return (FINE if fine else COARSE) ** (1 if spec.signed else 2)


def candidate(spec: QuantSpec, bounds: Range, index: Array, fine: bool) -> Range:
    """The i-th range: around `bounds` in the fine grid, within them in the coarse one."""
    size = FINE if fine else COARSE
    steps = index % size, index % size if spec.signed else index // size
    low, high = (RATIO ** ((step - FINE // 2) / 4 if fine else 1.0 * step) for step in steps)
    return bounds[0] * low, bounds[1] * high
