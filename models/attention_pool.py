"""Attention pooling (SigLIP, Zhai et al., 2303.15343): one learned query reads all tokens, then an MLP.

The query's projection has quantization points like those of a block's attention. The names are timm's, under
`attn_pool`.
"""

from typing import NamedTuple

import jax.numpy as jnp

from evolq_jax.models.layers import linear, merge_heads, mlp, split_heads
from evolq_jax.network.parts import Channels, SiteRoles
from evolq_jax.typing import Array, Params, Site

# beside those that the patterns of `models.vit` match
ROLES = SiteRoles(
    operands=(
        "norm", "attn_pool/latent", "attn_pool/q", "attn_pool/k", "attn_pool/v", "attn_pool/softmax",
        "attn_pool/context", "attn_pool/norm",
    ),
    beyond_paper=("attn_pool/k", "attn_pool/v"),  # `kv` is quantized
)  # fmt: skip
CHANNELS = (
    Channels("norm", "norm", ("attn_pool/kv",)),
    Channels("attn_pool/context", "attn_pool/kv", ("attn_pool/proj",), ("attn_pool/kv", "attn_pool/v")),
    Channels("attn_pool/norm", "attn_pool/norm", ("attn_pool/mlp/fc1",)),
)


class Numerics(NamedTuple):
    """What the weights do not say."""

    num_heads: int
    gelu_form: str
    eps: float


def pool(numerics: Numerics, params: Params, site: Site, x: Array) -> Array:
    """Tokens [B, N, D] -> what the classifier reads [B, D]."""
    query = site("q", linear(params["q"], site("latent", params["latent"])))  # [1, 1, D]
    k, v = jnp.split(site("kv", linear(params["kv"], x)), 2, axis=-1)
    q, k, v = (split_heads(t, numerics.num_heads) for t in (query, site("k", k), site("v", v)))
    logits = site("logits", jnp.einsum("hnd,bhmd->bhnm", q[0], k) * q.shape[-1] ** -0.5)
    weights = site.softmax("softmax", "logits", logits)
    context = site("context", merge_heads(jnp.einsum("bhnm,bhmd->bhnd", weights, v)))
    x = site("residual_mid", linear(params["proj"], context))
    h = site.layer_norm("norm", "residual_mid", x, params["norm"], eps=numerics.eps)
    return (x + mlp(params["mlp"], site, h, numerics.gelu_form))[:, 0]
