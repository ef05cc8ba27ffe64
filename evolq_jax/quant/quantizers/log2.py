"""Powers of two for the outputs of softmax (FQ-ViT, Lin et al., 2111.13824, section 4.2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import jax.numpy as jnp

from evolq_jax.quant.quantizers.base import Quantizer, Use, power_of_two
from evolq_jax.typing import Array

if TYPE_CHECKING:
    from evolq_jax.quant.qparams import SiteQParams
    from evolq_jax.quant.spec import QuantSpec


@dataclass(frozen=True)
class Log2(Quantizer):
    """Values in (0, 1] rounded to `2 ** -code`, in the logarithm. It has no numbers but its bits.

    As in the released code there are 2**bits exponents and zero besides: one code more than the bits hold.
    """

    name: str = "log2"
    does: str = "rounds to powers of two"
    integer: str = "shifts what is multiplied by the code; the highest code, 2**bits, stands for zero"
    uses: tuple[Use, ...] = ("softmax",)
    has_scale: bool = False
    takes_exponents: bool = True

    def encode(self, spec: QuantSpec, site_qparams: SiteQParams, x: Array) -> Array:
        """`round(-log2 x)`; what does not fit into the bits is zero."""
        exponent = jnp.maximum(jnp.round(-jnp.log2(x)), 0.0)
        return jnp.minimum(exponent, self.code_range(spec, site_qparams.bits)[1])

    def decode(self, spec: QuantSpec, site_qparams: SiteQParams, codes: Array) -> Array:
        """`2 ** -code`; codes of 2**bits and more stand for zero."""
        zero = self.code_range(spec, site_qparams.bits)[1]
        return jnp.where(codes < zero, power_of_two(-jnp.minimum(codes, zero)), 0.0)

    def code_range(self, spec: QuantSpec, bits: Array) -> tuple[Array, Array]:
        """From 0 to 2**bits, which stands for zero."""
        del spec
        return jnp.zeros_like(bits), power_of_two(bits)


LOG2 = Log2()
