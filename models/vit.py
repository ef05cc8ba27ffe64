"""Vision transformers: ViT (Dosovitskiy et al., 2010.11929), DeiT and its distilled form (2012.12877).

The parameter tree follows timm's names. Blocks are stacked on a leading L axis. Matrices are [in, out], and
patch embedding is HWIO. Quantization sites are those of the official Evol-Q code. A site has the name of the
layer whose output it quantizes. The residual stream is quantized where a block *receives* it
(`residual_in`). This is the same point as the "end of the previous block" of the released code, but it puts
a LayerNorm and the scales of its input into the same block.
"""

from dataclasses import dataclass
from functools import cache, partial

import jax
import jax.numpy as jnp

from evolq_jax.models.layers import linear, merge_heads, mlp, patch_embed, prepend_token, split_heads
from evolq_jax.network.parts import Channels, Linear, ModelParts, Segment, SiteRoles
from evolq_jax.typing import Array, Params, Site

ROLES = SiteRoles(
    # the image patches, the inputs of every linear layer, and both operands of the two attention products
    operands=(
        "image", "*/norm1", "*/attn/q", "*/attn/k", "*/attn/v", "*/attn/softmax", "*/attn/context",
        "*/norm2", "*/mlp/gelu", "norm",
    ),
    residual=("*/residual_in", "*/residual_mid", "residual_out"),
    edge_weights=("patch_embed/proj/weight", "head/weight", "head_dist/weight"),
    edge_inputs=("image", "norm"),
    per_tensor=("*/logits", "*/softmax", "head", "head_dist"),
    # the official code quantizes neither q, k and v once more nor the input of GELU
    beyond_paper=("*/attn/q", "*/attn/k", "*/attn/v", "*/mlp/fc1"),
    gelu=("*/mlp/gelu",),
    addends=(
        "tokens", "pos_embed", "*/residual_in", "*/residual_mid", "*/attn/proj", "*/mlp/fc2",
    ),
)  # fmt: skip
LINEARS = (
    Linear("attn/qkv", "norm1"),
    Linear("attn/proj", "attn/context", residual="residual_in"),
    Linear("mlp/fc1", "norm2"),
    Linear("mlp/fc2", "mlp/gelu", residual="residual_mid"),
)

CHANNELS = (
    Channels("blocks/norm1", "blocks/norm1", ("blocks/attn/qkv",)),
    # a value channel stays one through attention: rows of softmax only average it
    Channels(
        "blocks/attn/context", "blocks/attn/qkv", ("blocks/attn/proj",), ("blocks/attn/qkv", "blocks/attn/v")
    ),
    Channels("blocks/norm2", "blocks/norm2", ("blocks/mlp/fc1",)),
)


@dataclass(frozen=True)
class ViTConfig:
    """Sizes of a ViT and the numerical form of its checkpoint."""

    image_size: int = 224
    patch_size: int = 16
    channels: int = 3
    width: int = 768
    depth: int = 12
    num_heads: int = 12
    mlp_width: int = 3072
    num_classes: int = 1000
    distilled: bool = False
    registers: int = 0  # learned tokens after the class token that nothing reads
    gelu_form: str = "erf"
    eps: float = 1e-6

    @property
    def num_tokens(self) -> int:
        """N: patches plus class token (plus distillation token, plus registers)."""
        return (self.image_size // self.patch_size) ** 2 + 1 + self.distilled + self.registers


def embed(config: ViTConfig, params: Params, site: Site, images: Array) -> Array:
    """Normalised images [B, height, width, channels] -> tokens [B, N, D]."""
    x = site("patch_embed/proj", patch_embed(params["patch_embed"]["proj"], site("image", images)))
    if config.distilled:
        x = prepend_token(params["dist_token"], x)
    for number in range(config.registers):
        x = prepend_token(params["reg_token"][:, config.registers - 1 - number, None], x)
    x = site("tokens", prepend_token(params["cls_token"], x))
    return x + site("pos_embed", params["pos_embed"])


def attention(config: ViTConfig, params: Params, site: Site, x: Array) -> Array:
    """Multi-head self-attention with a fused qkv projection: [B, N, D] -> [B, N, D]."""
    qkv = site("attn/qkv", linear(params["qkv"], x))
    q, k, v = jnp.split(qkv, 3, axis=-1)
    q, k, v = site("attn/q", q), site("attn/k", k), site("attn/v", v)
    q, k, v = (split_heads(t, config.num_heads) for t in (q, k, v))
    logits = site("attn/logits", jnp.einsum("bhnd,bhmd->bhnm", q, k) * q.shape[-1] ** -0.5)
    weights = site.softmax("attn/softmax", "attn/logits", logits)
    context = merge_heads(jnp.einsum("bhnm,bhmd->bhnd", weights, v))
    return site("attn/proj", linear(params["proj"], site("attn/context", context)))


def block(config: ViTConfig, params: Params, site: Site, x: Array) -> Array:
    """One pre-norm transformer block: [B, N, D] -> [B, N, D]."""
    x = site("residual_in", x)
    h = site.layer_norm("norm1", "residual_in", x, params["norm1"], eps=config.eps)
    x = site("residual_mid", x + attention(config, params["attn"], site, h))
    h = site.layer_norm("norm2", "residual_mid", x, params["norm2"], eps=config.eps)
    return x + mlp(params["mlp"], site, h, config.gelu_form)


def head(config: ViTConfig, params: Params, site: Site, x: Array) -> Array:
    """Final norm and classifier on the class token: [B, N, D] -> logits [B, C].

    A distilled DeiT averages the classifiers of the class token and of the distillation token, as at
    inference in the DeiT paper (section 4).
    """
    x = site("residual_out", x)[:, : 1 + config.distilled]  # the tokens that classifiers read
    x = site.layer_norm("norm", "residual_out", x, params["norm"], eps=config.eps)
    logits = site("head", linear(params["head"], x[:, 0]))
    if not config.distilled:
        return logits
    return (logits + site("head_dist", linear(params["head_dist"], x[:, 1]))) / 2


@cache  # equal configs share one object, and with it the programs compiled for it
def make_vit(config: ViTConfig) -> ModelParts:
    """The network as one segment, `blocks`, of `depth` identical blocks."""
    blocks = Segment("blocks", config.depth, partial(embed, config), partial(block, config), LINEARS)
    heads = Channels("norm", "norm", ("head", "head_dist") if config.distilled else ("head",))
    return ModelParts((blocks,), partial(head, config), ROLES, (*CHANNELS, heads), features="norm")


def init_params(key: Array, config: ViTConfig) -> Params:
    """Random parameters for training from scratch: truncated normal 0.02, zero biases, unit norms."""
    d, depth, hidden = config.width, config.depth, config.mlp_width

    def layer(path: str, *shape: int) -> Params:
        subkey = jax.random.fold_in(key, sum(ord(c) * 31**i for i, c in enumerate(path)) % 2**31)
        weight = 0.02 * jax.random.truncated_normal(subkey, -2.0, 2.0, shape)
        return {"weight": weight, "bias": jnp.zeros((*shape[: len(shape) - 2], shape[-1]))}

    def norm(*lead: int) -> Params:
        return {"weight": jnp.ones((*lead, d)), "bias": jnp.zeros((*lead, d))}

    p = config.patch_size
    params = {
        "patch_embed": {"proj": layer("patch_embed", p, p, config.channels, d) | {"bias": jnp.zeros(d)}},
        "cls_token": jnp.zeros((1, 1, d)),
        "pos_embed": layer("pos_embed", 1, config.num_tokens, d)["weight"],
        "blocks": {
            "norm1": norm(depth),
            "attn": {"qkv": layer("qkv", depth, d, 3 * d), "proj": layer("proj", depth, d, d)},
            "norm2": norm(depth),
            "mlp": {"fc1": layer("fc1", depth, d, hidden), "fc2": layer("fc2", depth, hidden, d)},
        },
        "norm": norm(),
        "head": layer("head", d, config.num_classes),
    }
    if config.registers:
        params["reg_token"] = jnp.zeros((1, config.registers, d))
    if config.distilled:
        params |= {"dist_token": jnp.zeros((1, 1, d)), "head_dist": layer("head_dist", d, config.num_classes)}
    return params
