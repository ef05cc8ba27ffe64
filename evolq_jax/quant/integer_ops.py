"""LayerNorm and softmax in integer arithmetic (FQ-ViT, Lin et al., 2111.13824; exponential of I-BERT).

The integers are carried in float32, as in the official code.
"""

import jax.numpy as jnp

from evolq_jax.quant.quantizers.base import power_of_two
from evolq_jax.typing import Array, Params

# I-BERT (Kim et al., 2101.01321, section 3.4): exp(r) on (-ln 2, 0] is about A ((r + B)^2 + C).
EXP_A, EXP_B, EXP_C = 0.35815147, 0.96963238 / 0.35815147, 1.0 / 0.35815147
LN2 = 0.6931
MAX_SHIFT = 30  # exp is zero below -30 ln 2


def integer_layer_norm(norm: Params, x: Array, scale_in: Array, scale_out: Array) -> Array:
    """LayerNorm over the last axis of [..., D] on integers with power-of-two channel factors.

    `norm` holds a `weight` and a `bias` [D]. `scale_in` [..., D] or [..., 1] is the input's (ptf) scale,
    `scale_out` the output's. Multiplication by gamma/std becomes an 8-bit multiplier and a shift. Returns
    multiples of `scale_out`, unclipped.
    """
    weight, bias, width = norm["weight"], norm["bias"], x.shape[-1]
    smallest = scale_in.min()
    factor = jnp.round(scale_in / smallest)
    x_q = jnp.round(x / scale_in) * factor
    mean = x_q.mean(-1, keepdims=True) * smallest
    spread = width * (x_q**2).sum(-1, keepdims=True) - x_q.sum(-1, keepdims=True) ** 2
    std = smallest / width * jnp.sqrt(spread)

    gain = smallest / std * weight / scale_out
    shift = jnp.clip(7 - jnp.floor(jnp.log2(jnp.abs(gain))), 0, 31)
    denominator = power_of_two(shift)
    multiplier = jnp.clip(jnp.floor(jnp.abs(gain) * denominator), 0, 255)
    offset = jnp.round((bias - mean / std * weight) / scale_out * denominator)
    return jnp.round((jnp.sign(gain) * multiplier * x_q + offset) / denominator) * scale_out


def integer_softmax(logits: Array, scale: Array) -> Array:
    """Log-int-softmax over the last axis: exponents q of powers of two 2**-q, from `logits / scale`.

    Exponentials by I-BERT's integer polynomial, the quotient `sum / exp` rounded to its nearest power of two.
    The exponents are codes of the log2 quantizer, but for those that its bits do not hold.
    """
    q = logits / scale
    q = q - q.max(-1, keepdims=True)
    ln2 = jnp.floor(-LN2 / scale)
    q = jnp.maximum(q, MAX_SHIFT * ln2)
    shift = jnp.floor(q / ln2)
    rest = q - ln2 * shift
    poly = rest * (rest + jnp.floor(EXP_B / scale)) + jnp.floor(EXP_C / scale**2)
    exp = jnp.maximum(jnp.floor(poly * power_of_two(MAX_SHIFT - shift)), 0.0)
    quotient = jnp.round(exp.sum(-1, keepdims=True) / exp)
    floor = jnp.floor(jnp.log2(quotient))
    exponent = jnp.where(quotient >= 1.5 * 2**floor, floor + 1, floor)
    return exponent
