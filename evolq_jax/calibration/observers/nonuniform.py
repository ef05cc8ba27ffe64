"""Observers of the quantizers that are not uniform: grids of candidates, compared by their error.

- `log` (softmax): steps of 1, 1/2, ... octaves.
- `shifted_log` (GELU): codes per octave, times how much of the highest value is kept; of one or two codes
  alone, `shifted_log2` and `shifted_log_sqrt2`.
- `twin`: how much of the highest value is kept, times the octaves between both steps.
"""

import jax
import jax.numpy as jnp

from evolq_jax.quant.qparams import SiteQParams
from evolq_jax.quant.quantizers.log2 import GELU_DEPTH
from evolq_jax.quant.quantizers.powers import power_of_two
from evolq_jax.quant.sites import fake_quant_activation
from evolq_jax.quant.spec import QuantSpec
from evolq_jax.typing import Array

LOG_BASES = 6  # codes per octave that a logarithmic quantizer chooses from: 1, 2, ...
OCTAVES = 12  # between the steps of twin ranges: 0, 1, ...
KEPT = tuple(2.0 ** (-i / 4) for i in range(12))  # shares of the highest value
SHIFTED = {"shifted_log": 1, "shifted_log2": 1, "shifted_log_sqrt2": 2}  # the fewest codes per octave
EPS = 1e-7

Range = tuple[Array, Array]
_COUNTS = {
    "log": LOG_BASES,
    "shifted_log": LOG_BASES * len(KEPT),
    "shifted_log2": len(KEPT),
    "shifted_log_sqrt2": len(KEPT),
    "twin": OCTAVES * len(KEPT),
}


def num_candidates(spec: QuantSpec) -> int:
    """How many quantizers are compared."""
    return _COUNTS[spec.quantizer]


def candidate(spec: QuantSpec, bits: Array, bounds: Range, index: Array) -> SiteQParams:
    """The i-th quantizer of a tensor whose values lie within `bounds`; see the module."""
    high = jnp.maximum(bounds[1], EPS)
    if spec.quantizer == "log":
        return SiteQParams(jnp.full_like(high, 1.0) / (index + 1.0), jnp.zeros_like(high), bits)
    number, kept = index // len(KEPT), jnp.asarray(KEPT)[index % len(KEPT)]
    if spec.quantizer in SHIFTED:
        codes = number + SHIFTED[spec.quantizer]
        return SiteQParams(high * kept + GELU_DEPTH, jnp.full_like(high, 1.0) * codes, bits)
    coarse = high * kept * (1.0 / (power_of_two(bits - 1) - 1))
    return SiteQParams(coarse * 2.0**-number, jnp.full_like(high, 1.0) * number, bits)


def chunk_errors(
    spec: QuantSpec, bits: Array, bounds: Range, x: Array, importance: Array | None = None
) -> Array:
    """Error of every candidate on one chunk: [candidates, 1, ..., 1]; chunks add up.

    For softmax, what rounding the weights [..., N] of a mean does to it: single errors, and those of their
    sum. For values v of mean m and deviation s, E |sum(error * v)|^2 = s^2 sum(error^2) + m^2 sum(error)^2;
    m and s are taken as equal. Squared errors alone would choose so fine a base that most weights become
    zero. For GELU, squared errors. `importance`, of the shape of `x`, weighs each value's squared error, and
    its mean over a row that of the row's sum.
    """
    weight = jnp.ones_like(x) if importance is None else importance
    of_row = weight.mean(-1, keepdims=True)
    averages = not (spec.signed or spec.quantizer in SHIFTED)

    def error(quantizer: SiteQParams) -> Array:
        difference = fake_quant_activation(spec, quantizer, x) - x
        squares = (weight * difference**2).sum(keepdims=True)
        if not averages:
            return squares
        return squares + (of_row * difference.sum(-1, keepdims=True) ** 2).sum(keepdims=True)

    return jax.lax.map(
        error, jax.vmap(lambda i: candidate(spec, bits, bounds, i))(jnp.arange(num_candidates(spec)))
    )
