"""How far activations are from the float network's: the features, and a block's own output."""

import jax.numpy as jnp

from evolq_jax.typing import Array

FLOOR = 1e-3  # of a token's mean square, relative to the mean over all tokens


def relative_error(output: Array, wanted: Array) -> Array:
    """Each token's mean squared error over the token's own mean square, averaged over tokens: [B].

    A block is mostly followed by a norm, for which a token's size means nothing. In a plain mean the few
    tokens with massive activations would decide everything.

    Args:
      output: activations of the quantized network [B, ..., channels].
      wanted: activations of the float network, in the same shape.
    """
    size = (wanted**2).mean(-1)
    error = ((output - wanted) ** 2).mean(-1) / jnp.maximum(size, FLOOR * size.mean())
    return error.reshape(len(error), -1).mean(-1)
