"""The layers that networks share, as pure functions of explicit parameters."""

import jax
import jax.numpy as jnp

from evolq_jax.typing import Array, Params


def linear(params: Params, x: Array) -> Array:
    """`x @ weight + bias` for `x` [..., in], `weight` [in, out], `bias` [out]."""
    return x @ params["weight"] + params["bias"]


def patch_embed(params: Params, x: Array) -> Array:
    """Non-overlapping patches to tokens: [B, height, width, channels] -> [B, N, D].

    `weight` is HWIO [p, p, channels, D]. A stride-p convolution of p x p is one matrix product over
    flattened patches, which is also the faster form on CPU.
    """
    weight = params["weight"]
    p, _, channels, width = weight.shape
    b, h, w, _ = x.shape
    patches = x.reshape(b, h // p, p, w // p, p, channels).transpose(0, 1, 3, 2, 4, 5)
    patches = patches.reshape(b, (h // p) * (w // p), p * p * channels)
    return patches @ weight.reshape(p * p * channels, width) + params["bias"]


def gelu(x: Array, form: str) -> Array:
    """GELU in the form the checkpoint was trained with: `'erf'` (exact) or `'tanh'`."""
    return jax.nn.gelu(x, approximate=form == "tanh")


def split_heads(x: Array, num_heads: int) -> Array:
    """[B, N, H * d] -> [B, H, N, d]."""
    b, n, width = x.shape
    return x.reshape(b, n, num_heads, width // num_heads).transpose(0, 2, 1, 3)


def merge_heads(x: Array) -> Array:
    """[B, H, N, d] -> [B, N, H * d]."""
    b, h, n, d = x.shape
    return x.transpose(0, 2, 1, 3).reshape(b, n, h * d)


def prepend_token(token: Array, x: Array) -> Array:
    """Puts one learned token [1, 1, D] before the tokens of every image [B, N, D]."""
    return jnp.concatenate([jnp.broadcast_to(token, (x.shape[0], 1, x.shape[2])), x], axis=1)
