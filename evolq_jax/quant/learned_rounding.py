"""Rounding of weights that can be learned: AdaRound (Nagel et al., 2004.10568, equations 21 to 24).

Each weight lies between two integers, and h in [0, 1] says which: 0 the lower, 1 the upper. h is a sigmoid
of a free number v, stretched beyond [0, 1] and clipped, so that it can reach both ends.
"""

import jax
import jax.numpy as jnp

from evolq_jax.quant.qparams import SiteQParams
from evolq_jax.quant.spec import QuantSpec
from evolq_jax.typing import Array

LOW, HIGH = -0.1, 1.1  # what the sigmoid is stretched to


def soft_round(v: Array) -> Array:
    """h(v) in [0, 1]."""
    return jnp.clip((HIGH - LOW) * jax.nn.sigmoid(v) + LOW, 0.0, 1.0)


def rounding_logits(site_qparams: SiteQParams, weight: Array) -> Array:
    """The v at which h is the weight's fraction: the quantizer then leaves the weight as it is."""
    steps = weight / site_qparams.scale
    fraction = steps - jnp.floor(steps)
    return -jnp.log((HIGH - LOW) / (fraction - LOW) - 1.0)


def soft_quantize(spec: QuantSpec, site_qparams: SiteQParams, weight: Array, v: Array) -> Array:
    """What the weight is while its rounding is learned; differentiable in v."""
    return spec.quantizer.decode(spec, site_qparams, _between(spec, site_qparams, weight, soft_round(v)))


def chosen_integers(spec: QuantSpec, site_qparams: SiteQParams, weight: Array, v: Array) -> Array:
    """The integers decided for, as float32: the upper one where h is a half or more."""
    return _between(spec, site_qparams, weight, (soft_round(v) >= 0.5).astype(weight.dtype))


def undecided(v: Array, power: Array | float) -> Array:
    """The regulariser of each weight, `1 - |2 h - 1|**power`: 0 where h is 0 or 1, 1 at a half."""
    return 1.0 - jnp.abs(2.0 * soft_round(v) - 1.0) ** power


def _between(spec: QuantSpec, site_qparams: SiteQParams, weight: Array, h: Array) -> Array:
    lowest, highest = spec.quantizer.code_range(spec, site_qparams.bits)
    return jnp.clip(jnp.floor(weight / site_qparams.scale) + h + site_qparams.zero_point, lowest, highest)
