"""Equal steps of the logarithm for the outputs of softmax.

`log`: powers of a base that calibration chooses (as AdaLog does, Wu et al., 2407.12951). `log_sqrt2` has the
base sqrt(2) (of RepQ-ViT, Li et al., 2212.08254), one of those that `log` chooses from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import jax.numpy as jnp

from evolq_jax.quant.qparams import SiteQParams
from evolq_jax.quant.quantizers.base import Quantizer, Range, Use, error_of_mean
from evolq_jax.typing import Array

if TYPE_CHECKING:
    from evolq_jax.quant.spec import QuantSpec

BASES = 6  # codes per octave that calibration chooses from: 1, 2, ...


@dataclass(frozen=True)
class Log(Quantizer):
    """Values in (0, 1] rounded to `2 ** (-scale * code)`; the highest of the 2**bits codes stands for zero.

    Attributes:
      octaves: the step's size, which is fixed; None: it is the scale, one octave or a part of it.
    """

    name: str = "log"
    does: str = "rounds to powers of a base that calibration chooses"
    integer: str = (
        "shifts, and multiplies by one of a few constants, or takes one of at most 2**bits fixed-point "
        "values from a table"
    )
    uses: tuple[Use, ...] = ("softmax",)
    octaves: float | None = None

    def encode(self, spec: QuantSpec, site_qparams: SiteQParams, x: Array) -> Array:
        """`round(-log2(x) / octaves)`."""
        code = jnp.round(-jnp.log2(x) / self._octaves(site_qparams))
        return jnp.clip(code, *self.code_range(spec, site_qparams.bits))

    def decode(self, spec: QuantSpec, site_qparams: SiteQParams, codes: Array) -> Array:
        """`2 ** (-octaves * code)`, but for the highest code."""
        zero = self.code_range(spec, site_qparams.bits)[1]
        return jnp.where(codes < zero, jnp.exp2(-self._octaves(site_qparams) * codes), 0.0)

    def num_candidates(self, spec: QuantSpec) -> int:
        """One for each base."""
        del spec
        return BASES if self.octaves is None else 0

    def candidate(self, spec: QuantSpec, bits: Array, bounds: Range, index: Array) -> SiteQParams:
        """A step of 1, 1/2, ... octaves."""
        del spec
        ones = jnp.ones_like(bounds[1])
        return SiteQParams(ones / (index + 1.0), jnp.zeros_like(ones), bits)

    def error(self, spec: QuantSpec, difference: Array, weight: Array) -> Array:
        """What rounding does to a mean that the values weigh."""
        del spec
        return error_of_mean(difference, weight)

    def _octaves(self, site_qparams: SiteQParams) -> Array:
        return site_qparams.scale if self.octaves is None else jnp.float32(self.octaves)


LOG = Log()
LOG_SQRT2 = Log(
    name="log_sqrt2",
    does="rounds to powers of the square root of two",
    integer="shifts, and multiplies by one constant where the exponent is odd",
    has_scale=False,
    octaves=0.5,
)
