"""Twin uniform ranges (PTQ4ViT, Yuan et al., 2111.12293, section 3.2): half of the codes for each of two.

A quantizer's `scale` is the step of the finer range, its `zero_point` the octaves m between both steps. So
an integer product runs once: codes of the coarser range are shifted left by m before they are multiplied (or
both ranges have accumulators of their own, and the coarser one's is shifted once), and `scale` times the
weight's scale is the step of the sum. One bit of a code says which range it is of. Zero is exact.
"""

import jax.numpy as jnp

from evolq_jax.quant.qparams import SiteQParams
from evolq_jax.quant.quantizers.powers import power_of_two
from evolq_jax.quant.spec import QuantSpec
from evolq_jax.typing import Array


def twin_fake_quant(spec: QuantSpec, site_qparams: SiteQParams, x: Array) -> Array:
    """`x` on the grid of two ranges, each with 2**(bits - 1) codes.

    Signed (outputs of GELU): the finer step below zero, the coarser one from zero on. Unsigned (outputs of
    softmax): the finer step up to the highest code that it has, the coarser one beyond.
    """
    fine, half = site_qparams.scale, power_of_two(site_qparams.bits - 1)
    coarse = fine * power_of_two(site_qparams.zero_point)
    large = jnp.clip(jnp.round(x / coarse), 0, half - 1) * coarse
    if spec.signed:
        return jnp.where(x < 0, jnp.clip(jnp.round(x / fine), -half, 0) * fine, large)
    small = jnp.maximum(jnp.round(x / fine), 0)
    return jnp.where(small <= half - 1, small * fine, large)
