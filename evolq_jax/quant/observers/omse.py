"""The `omse` observers: shrink the range to the least squared error (Choukroun et al., 1902.06822)."""

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

SHRINKS = 1.0 - 0.01 * np.arange(90, dtype=np.float32)


@dataclass(frozen=True)
class Omse(Observer):
    """The share of the extremes with the least squared error."""

    name: str = "omse"
    does: str = "shrinks the range to where the squared error is least"
    num_grids: int = 1
    channels_apart: bool = True

    def num_candidates(self, spec: QuantSpec, grid: int = 0) -> int:
        """Shares from 1 down to 0.11."""
        del spec, grid
        return len(SHRINKS)

    def candidate(
        self, spec: QuantSpec, bits: Array, bounds: Range, index: Array, *, grid: int = 0
    ) -> SiteQParams:
        """The numbers of the range shrunk to the share of that index."""
        del grid
        (low, high), shrink = bounds, jnp.asarray(SHRINKS)[index]
        return range_qparams(spec, bits, (low * shrink, high * shrink))


@dataclass(frozen=True)
class OmseShared(Omse):
    """The same with one share for all channels, as the released code has it."""

    name: str = "omse_shared"
    does: str = "does as `omse`, with one share for all channels"
    channels_apart: bool = False

    def errors(self, spec: QuantSpec, candidates: SiteQParams, x: Array, importance: Array | None) -> Array:
        """Those of all channels together."""
        return super().errors(spec, candidates, x, importance).sum(-1, keepdims=True)


OMSE = Omse()
OMSE_SHARED = OmseShared()
