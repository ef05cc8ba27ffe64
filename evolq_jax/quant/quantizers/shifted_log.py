"""Logarithmic steps for the outputs of GELU, which are lifted above zero first (AdaLog, 2407.12951)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import jax.numpy as jnp

from evolq_jax.quant.qparams import SiteQParams
from evolq_jax.quant.quantizers.base import EPS, KEPT, Quantizer, Range, Use
from evolq_jax.typing import Array

if TYPE_CHECKING:
    from evolq_jax.quant.spec import QuantSpec

GELU_DEPTH = 0.17  # GELU is nowhere below -0.16997
BASES = 6  # codes per octave that calibration chooses from: 1, 2, ...


@dataclass(frozen=True)
class ShiftedLog(Quantizer):
    """Values rounded to `scale * 2 ** (-code / zero_point) - GELU_DEPTH`.

    `scale` is the highest value plus `GELU_DEPTH`; `zero_point` counts codes per octave: 1 is log2, 2
    log-sqrt2. Since the shift is one constant, a product `x @ weight` is that of the powers, less
    `GELU_DEPTH` times the weight's column sums: a part of the bias.

    Attributes:
      codes_per_octave: the only base that calibration compares; None: it chooses one.
    """

    name: str = "shifted_log"
    does: str = "lifts values above zero, then rounds to powers of a base that calibration chooses"
    integer: str = "does as for `log`; what was added folds into the next layer's bias"
    uses: tuple[Use, ...] = ("gelu",)
    codes_per_octave: int | None = None

    def encode(self, spec: QuantSpec, site_qparams: SiteQParams, x: Array) -> Array:
        """`round(-log2((x + GELU_DEPTH) / scale) * zero_point)`."""
        lifted = jnp.maximum(x + GELU_DEPTH, 1e-6)
        code = jnp.round(-jnp.log2(lifted / site_qparams.scale) * site_qparams.zero_point)
        return jnp.clip(code, *self.code_range(spec, site_qparams.bits))

    def decode(self, spec: QuantSpec, site_qparams: SiteQParams, codes: Array) -> Array:
        """`scale * 2 ** (-code / zero_point) - GELU_DEPTH`."""
        del spec
        return site_qparams.scale * jnp.exp2(-codes / site_qparams.zero_point) - GELU_DEPTH

    def num_candidates(self, spec: QuantSpec) -> int:
        """Bases, times how much of the highest value is kept."""
        del spec
        return len(KEPT) * (BASES if self.codes_per_octave is None else 1)

    def candidate(self, spec: QuantSpec, bits: Array, bounds: Range, index: Array) -> SiteQParams:
        """The base `index // len(KEPT)`, and the share `index % len(KEPT)` of the highest value."""
        del spec
        high = jnp.maximum(bounds[1], EPS)
        base, kept = index // len(KEPT), jnp.asarray(KEPT)[index % len(KEPT)]
        codes = jnp.ones_like(high) * (base + (self.codes_per_octave or 1))
        return SiteQParams(high * kept + GELU_DEPTH, codes, bits)


SHIFTED_LOG = ShiftedLog()
SHIFTED_LOG2 = ShiftedLog(
    name="shifted_log2",
    does="lifts values above zero, then rounds to powers of two",
    integer="shifts, as for `log2`; what was added folds into the next layer's bias",
    codes_per_octave=1,
)
SHIFTED_LOG_SQRT2 = ShiftedLog(
    name="shifted_log_sqrt2",
    does="lifts values above zero, then rounds to powers of the square root of two",
    integer="does as for `log_sqrt2`; what was added folds into the next layer's bias",
    codes_per_octave=2,
)
