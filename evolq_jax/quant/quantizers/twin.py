"""Twin uniform ranges (PTQ4ViT, Yuan et al., 2111.12293, section 3.2): half of the codes for each of two."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import jax.numpy as jnp

from evolq_jax.quant.qparams import SiteQParams
from evolq_jax.quant.quantizers.base import EPS, KEPT, Quantizer, Range, Use, error_of_mean, power_of_two
from evolq_jax.quant.quantizers.uniform import int_range
from evolq_jax.typing import Array

if TYPE_CHECKING:
    from evolq_jax.quant.spec import QuantSpec

OCTAVES = 12  # between both steps: 0, 1, ...


@dataclass(frozen=True)
class Twin(Quantizer):
    """A fine range and a coarse one, each with 2**(bits - 1) codes.

    `scale` is the step of the finer range, `zero_point` the octaves m between both steps. The highest bit of
    a code says which range it is of. Signed (outputs of GELU): the finer step below zero, the coarser one
    from zero on. Unsigned (outputs of softmax): the finer step up to the highest code that it has, the
    coarser one beyond. Zero is exact.
    """

    name: str = "twin"
    does: str = "has a fine step for small values, or for those below zero, and a coarse one for the others"
    integer: str = (
        "multiplies once: codes of the coarser range are shifted left by m first, or have an accumulator of "
        "their own, which is shifted once"
    )
    uses: tuple[Use, ...] = ("softmax", "gelu")
    signed_for: tuple[Use, ...] = ("gelu",)

    def encode(self, spec: QuantSpec, site_qparams: SiteQParams, x: Array) -> Array:
        """Signed: the sign is the range's bit. Unsigned: the coarser range's codes come after the finer's."""
        fine, coarse, half = _steps(site_qparams)
        large = jnp.clip(jnp.round(x / coarse), 0, half - 1)
        if spec.signed:
            return jnp.where(x < 0, jnp.clip(jnp.round(x / fine), -half, 0), large)
        small = jnp.maximum(jnp.round(x / fine), 0)
        return jnp.where(small <= half - 1, small, half + large)

    def decode(self, spec: QuantSpec, site_qparams: SiteQParams, codes: Array) -> Array:
        """A code times the step of its range."""
        fine, coarse, half = _steps(site_qparams)
        if spec.signed:
            return codes * jnp.where(codes < 0, fine, coarse)
        return jnp.where(codes < half, codes * fine, (codes - half) * coarse)

    def code_range(self, spec: QuantSpec, bits: Array) -> tuple[Array, Array]:
        """That of the integer type."""
        return int_range(spec.signed, bits)

    def num_candidates(self, spec: QuantSpec) -> int:
        """Octaves between the steps, times how much of the highest value is kept."""
        del spec
        return OCTAVES * len(KEPT)

    def candidate(self, spec: QuantSpec, bits: Array, bounds: Range, index: Array) -> SiteQParams:
        """`index // len(KEPT)` octaves, and the share `index % len(KEPT)` of the highest value."""
        del spec
        high = jnp.maximum(bounds[1], EPS)
        octaves, kept = index // len(KEPT), jnp.asarray(KEPT)[index % len(KEPT)]
        coarse = high * kept * (1.0 / (power_of_two(bits - 1) - 1))
        return SiteQParams(coarse * 2.0**-octaves, jnp.ones_like(high) * octaves, bits)

    def error(self, spec: QuantSpec, difference: Array, weight: Array) -> Array:
        """Of softmax outputs, what rounding does to a mean that they weigh; of GELU's, squared errors."""
        return super().error(spec, difference, weight) if spec.signed else error_of_mean(difference, weight)


def _steps(site_qparams: SiteQParams) -> tuple[Array, Array, Array]:
    """The finer and the coarser step, and the number of codes of each range."""
    fine = site_qparams.scale
    return fine, fine * power_of_two(site_qparams.zero_point), power_of_two(site_qparams.bits - 1)


TWIN = Twin()
