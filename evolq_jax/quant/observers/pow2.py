"""The `pow2` observer: one step for a tensor times a power of two for each channel, by least error.

Where a few channels carry values hundreds of times those of the others, as in the residual stream and
the GELU of trained ViTs, one step for all loses either them or the rest. Powers of two keep integer
execution: before a matrix product the integers of channel k are shifted left by `shift_k`, 14 at most (or
channels of equal shift are permuted together, and each group's accumulator is shifted once); zero points are
per channel and fold into the bias of the layer that reads the channels. What two activations multiply (q with
k, softmax with v), or an addition or a LayerNorm reads (`fully_quantized`), has no such bias: there they are
taken off the integers first. FQ-ViT's ptf (Lin et al., 2111.13824) is the same with four powers and one zero
point, before LayerNorm only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import jax.numpy as jnp

from evolq_jax.quant.observers.base import Observer
from evolq_jax.quant.qparams import SiteQParams
from evolq_jax.quant.quantizers.base import EPS, Range
from evolq_jax.quant.quantizers.uniform import int_range
from evolq_jax.typing import Array

if TYPE_CHECKING:
    from evolq_jax.quant.spec import QuantSpec

MAX_SHIFT = 12  # channels whose range is smaller than 2**-MAX_SHIFT of the widest share its step
OFFSETS = 8  # steps tried for the tensor, a factor 2**(1 / OFFSETS) apart
CLIPS = 3  # powers tried for a channel: the least that holds its range, and those below


@dataclass(frozen=True)
class Pow2(Observer):
    """The tensor's step and the channels' shifts with the least squared error."""

    name: str = "pow2"
    does: str = "finds one step for the tensor, and a power of two of it for each channel, by squared error"
    by_channel: bool = True
    num_grids: int = 1

    def num_candidates(self, spec: QuantSpec, grid: int = 0) -> int:
        """Steps of the tensor, times powers of a channel."""
        del spec, grid
        return OFFSETS * CLIPS

    def candidate(
        self, spec: QuantSpec, bits: Array, bounds: Range, index: Array, *, grid: int = 0
    ) -> SiteQParams:
        """The step `index // CLIPS`, and the power `index % CLIPS`. The bounds are those of channels."""
        del grid
        low, high = jnp.minimum(bounds[0], 0.0), jnp.maximum(bounds[1], 0.0)
        qmin, qmax = int_range(spec.signed, bits)
        width = 2 * jnp.maximum(-low, high) if spec.signed else high - low
        exact = jnp.maximum(width * (1.0 / (qmax - qmin)), EPS)
        offset, clip = index // CLIPS, index % CLIPS
        step = exact.max(-1, keepdims=True) * 2.0 ** (-offset / OFFSETS)
        shift = jnp.clip(jnp.ceil(jnp.log2(exact / step)), -MAX_SHIFT, 1) - clip
        scale = step * 2.0**shift
        if spec.signed:
            return SiteQParams(scale, jnp.zeros_like(scale), bits)
        # A clipped range keeps its shape: both ends shrink by the same factor.
        kept = low * jnp.minimum(scale / exact, 1.0)
        return SiteQParams(scale, jnp.clip(qmin - jnp.round(kept / scale), qmin, qmax), bits)

    def best(self, errors: Array) -> Array:
        """The best of each channel [..., K], among those of the one step that is best for the tensor."""
        by_offset = errors.reshape(OFFSETS, CLIPS, *errors.shape[1:])
        clip = by_offset.argmin(1)  # [OFFSETS, ..., K]
        totals = by_offset.min(1).reshape(OFFSETS, -1).sum(-1)
        offset = totals.argmin()
        return offset * CLIPS + clip[offset]


POW2 = Pow2()
