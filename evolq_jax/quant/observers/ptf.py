"""The `ptf` observer: one step for a tensor over 1, 2, 4 or 8 for each channel (FQ-ViT, 2111.13824)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import jax.numpy as jnp
import numpy as np

from evolq_jax.quant.observers.base import Observer
from evolq_jax.quant.qparams import SiteQParams
from evolq_jax.quant.quantizers.base import Range
from evolq_jax.quant.quantizers.uniform import range_qparams
from evolq_jax.typing import Array

if TYPE_CHECKING:
    from evolq_jax.quant.spec import QuantSpec

PTF_FACTORS = np.array([1.0, 2.0, 4.0, 8.0], np.float32)


@dataclass(frozen=True)
class Ptf(Observer):
    """Power-of-two factors: the tensor's range for the largest, and each channel's own factor below it."""

    name: str = "ptf"
    does: str = "finds one range for the tensor, and divides its step by 1, 2, 4 or 8 for each channel"
    by_channel: bool = True
    num_grids: int = 1

    def range_axes(self, spec: QuantSpec, ndim: int) -> tuple[int, ...]:
        """All: channels differ by their factors alone."""
        del spec
        return tuple(range(ndim))

    def num_candidates(self, spec: QuantSpec, grid: int = 0) -> int:
        """The number of factors."""
        del spec, grid
        return len(PTF_FACTORS)

    def candidate(
        self, spec: QuantSpec, bits: Array, bounds: Range, index: Array, *, grid: int = 0
    ) -> SiteQParams:
        """The range's numbers, with the step of the factor of that index. The largest has the whole range."""
        del grid
        coarsest = range_qparams(spec, bits, bounds)
        scale = coarsest.scale / PTF_FACTORS[-1] * jnp.asarray(PTF_FACTORS)[index]
        return coarsest._replace(scale=scale)


PTF = Ptf()
