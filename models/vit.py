"""Vision transformers: ViT (Dosovitskiy et al., 2010.11929), DeiT and its distilled form (2012.12877).

Variants are options of `ViTConfig`: DeiT III (2204.07118), DINOv2 (2304.07193) with registers, BEiT
(2106.08254), CLIP (2103.00020), SigLIP (2303.15343), and ViTs that pool patches.

The parameter tree follows timm's names. Blocks are stacked on a leading L axis. Matrices are [in, out], and
patch embedding is HWIO. Quantization sites are those of the official Evol-Q code. A site has the name of the
layer whose output it quantizes. The residual stream is quantized where a block *receives* it
(`residual_in`). This is the same point as the "end of the previous block" of the released code, but it puts
a LayerNorm and the scales of its input into the same block.
"""

from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Literal

import jax.numpy as jnp
import numpy as np

from evolq_jax.errors import UserError
from evolq_jax.models import attention_pool
from evolq_jax.models.layers import (
    Within,
    linear,
    merge_heads,
    mlp,
    patch_embed,
    relative_position_index,
    split_heads,
)
from evolq_jax.network.parts import Channels, Linear, ModelParts, Segment, SiteRoles
from evolq_jax.quant.sites import layer_norm
from evolq_jax.typing import Array, Params, Site

ROLES = SiteRoles(
    # the image patches, the inputs of every linear layer, and both operands of the two attention products
    operands=(
        "image", "*/norm1", "*/attn/q", "*/attn/k", "*/attn/v", "*/attn/softmax", "*/attn/context",
        "*/norm2", "*/mlp/gelu",
    ),
    residual=("*/residual_in", "*/residual_mid", "residual_out", "residual_pre", "residual_pool"),
    edge_weights=("patch_embed/proj/weight", "head/weight", "head_dist/weight"),
    edge_inputs=("image",),
    per_tensor=("*/logits", "*/biased_logits", "*/softmax", "head", "head_dist"),
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
    """Sizes of a ViT, its variant, and the numerical form of its checkpoint. The defaults are the paper's.

    Attributes:
      image_size: pixels along each side. What is left beside whole patches is not seen.
      patch_size: pixels along each side of a patch.
      channels: of the images.
      width: D, of a token.
      depth: L, the number of blocks.
      num_heads: H.
      mlp_width: of the hidden layer.
      num_classes: C.
      distilled: DeiT's distillation token, with a classifier of its own.
      class_token: whether a class token leads the tokens.
      registers: learned tokens after the class token that nothing reads (2309.16588).
      positions: which tokens have position embeddings: `all`; `patches` alone (DeiT III); or `none`.
      relative_positions: a table of attention biases by relative position in every block (BEiT).
      pre_norm: a norm between embedding and blocks, and no bias in the embedding (CLIP).
      qkv_bias: `full`; `qv`, where keys have none (BEiT); or `none`.
      qk_norm: a norm of each head's queries and keys (2302.05442).
      layer_scale: a learned gain for each channel of a branch's output (2103.17239).
      pool: what the classifier reads: the class `token`; the `mean` of the patches; or their `attention` pool
        (SigLIP).
      norm_pooled: whether the final norm follows the mean. Else it precedes it.
      gelu_form: `erf`, `tanh` or `quick`, see `layers.gelu`.
      eps: of the norms.
    """

    image_size: int = 224
    patch_size: int = 16
    channels: int = 3
    width: int = 768
    depth: int = 12
    num_heads: int = 12
    mlp_width: int = 3072
    num_classes: int = 1000
    distilled: bool = False
    class_token: bool = True
    registers: int = 0
    positions: Literal["all", "patches", "none"] = "all"
    relative_positions: bool = False
    pre_norm: bool = False
    qkv_bias: Literal["full", "qv", "none"] = "full"
    qk_norm: bool = False
    layer_scale: bool = False
    pool: Literal["token", "mean", "attention"] = "token"
    norm_pooled: bool = False
    gelu_form: str = "erf"
    eps: float = 1e-6

    def __post_init__(self) -> None:
        """Rejects what contradicts itself."""
        if self.pool == "token" and not self.class_token:
            raise UserError(
                "pool 'token' reads the class token, and class_token is False: choose another pool"
            )
        if self.distilled and (self.pool != "token" or self.registers or self.positions != "all"):
            raise UserError(
                "a distilled ViT reads its two tokens, has no registers, and embeds all positions"
            )
        if self.relative_positions and (self.registers or self.distilled):
            raise UserError("relative_positions know patches and a class token, no other tokens")
        if self.norm_pooled and self.pool != "mean":
            raise UserError(f"norm_pooled is for the pool 'mean', not for '{self.pool}'")
        if self.image_size < self.patch_size:
            raise UserError(f"image_size {self.image_size} is smaller than a patch of {self.patch_size}")

    @property
    def side(self) -> int:
        """Patches along each side of an image."""
        return self.image_size // self.patch_size

    @property
    def num_prefix(self) -> int:
        """Tokens before those of the patches."""
        return self.class_token + self.distilled + self.registers

    @property
    def num_tokens(self) -> int:
        """N: patches and what leads them."""
        return self.side**2 + self.num_prefix

    @property
    def num_positions(self) -> int:
        """Tokens with a position embedding."""
        return {"all": self.num_tokens, "patches": self.side**2, "none": 0}[self.positions]

    @property
    def features(self) -> str:
        """The site that the classifiers read."""
        return "norm" if self.pool == "token" or self.norm_pooled else "pool"


def embed(config: ViTConfig, params: Params, site: Site, images: Array) -> Array:
    """Normalised images [B, height, width, channels] -> tokens [B, N, D]."""
    x = site("patch_embed/proj", patch_embed(params["patch_embed"]["proj"], site("image", images)))
    if config.positions == "all":
        x = site("tokens", prepend_tokens(config, params, x)) + site("pos_embed", params["pos_embed"])
    elif config.positions == "patches":
        x = site("tokens", x) + site("pos_embed", params["pos_embed"])
        x = prepend_tokens(config, params, x)
    else:
        x = prepend_tokens(config, params, x)
    if config.pre_norm:
        x = site.layer_norm(
            "norm_pre", "residual_pre", site("residual_pre", x), params["norm_pre"], eps=config.eps
        )
    return x


def prepend_tokens(config: ViTConfig, params: Params, x: Array) -> Array:
    """Puts the learned tokens before those of every image [B, N, D]."""
    tokens = {"cls_token": config.class_token, "dist_token": config.distilled, "reg_token": config.registers}
    led = [
        jnp.broadcast_to(params[name], (x.shape[0], *params[name].shape[1:]))
        for name in tokens
        if tokens[name]
    ]
    return jnp.concatenate([*led, x], axis=1)


def attention(config: ViTConfig, params: Params, site: Site, x: Array, *, read: int | None = None) -> Array:
    """Multi-head self-attention with a fused qkv projection: [B, N, D] -> [B, N, D].

    With `read` only the first so many tokens ask: [B, read, D].
    """
    qkv = site("attn/qkv", linear(params["qkv"], x))
    q, k, v = jnp.split(qkv, 3, axis=-1)
    q = q[:, :read]
    if config.qk_norm:
        q, k = (norm_heads(config, params[f"{name}_norm"], t) for name, t in (("q", q), ("k", k)))
    q, k, v = site("attn/q", q), site("attn/k", k), site("attn/v", v)
    q, k, v = (split_heads(t, config.num_heads) for t in (q, k, v))
    source, logits = "attn/logits", jnp.einsum("bhnd,bhmd->bhnm", q, k) * q.shape[-1] ** -0.5
    logits = site(source, logits)
    if config.relative_positions:
        name, source = "relative_position_bias_table", "attn/biased_logits"
        biases = site(f"attn/{name}", params[name])[position_index(config)].transpose(2, 0, 1)  # [H, N, N]
        logits = site(source, logits + biases[:, :read])
    weights = site.softmax("attn/softmax", source, logits)
    context = merge_heads(jnp.einsum("bhnm,bhmd->bhnd", weights, v))
    return site("attn/proj", linear(params["proj"], site("attn/context", context)))


def norm_heads(config: ViTConfig, norm: Params, x: Array) -> Array:
    """LayerNorm of every head of [B, N, H * d], with a `weight` and a `bias` [d]. It runs in float."""
    heads = x.reshape(*x.shape[:-1], config.num_heads, -1)
    return layer_norm(norm, heads, config.eps).reshape(x.shape)


def position_index(config: ViTConfig) -> np.ndarray:
    """The row of the bias table for every (query, key): [N, N].

    After the rows for patches, three are for: the class token's query, its key, and both at once.
    """
    index = relative_position_index(config.side)
    if not config.class_token:
        return index
    rows, index = position_rows(config) - 3, np.pad(index, ((1, 0), (1, 0)))
    index[0], index[:, 0], index[0, 0] = rows, rows + 1, rows + 2
    return index


def position_rows(config: ViTConfig) -> int:
    """The number of rows of the table of position biases."""
    return (2 * config.side - 1) ** 2 + 3 * config.class_token


def block(config: ViTConfig, params: Params, site: Site, x: Array, *, read: int | None = None) -> Array:
    """One pre-norm transformer block: [B, N, D] -> [B, N, D]; with `read` only the first tokens of that."""
    x = site("residual_in", x)
    h = site.layer_norm("norm1", "residual_in", x, params["norm1"], eps=config.eps)
    x = site("residual_mid", x[:, :read] + attention(config, params["attn"], site, h, read=read))
    h = site.layer_norm("norm2", "residual_mid", x, params["norm2"], eps=config.eps)
    return x + mlp(params["mlp"], site, h, config.gelu_form)


def head(config: ViTConfig, params: Params, site: Site, x: Array) -> Array:
    """Final norm, pooling and classifier: [B, N, D] -> logits [B, C].

    A distilled DeiT averages the classifiers of the class token and of the distillation token, as at
    inference in the DeiT paper (section 4).
    """
    x = site("residual_out", x)
    # the tokens that are read
    x = x[:, : 1 + config.distilled] if config.pool == "token" else x[:, config.num_prefix :]
    source = "residual_out"
    if config.norm_pooled:
        source, x = "residual_pool", site("residual_pool", x.mean(1))
    x = site.layer_norm("norm", source, x, params["norm"], eps=config.eps)
    if config.pool == "attention":
        given, inside = params["attn_pool"], Within(site, "attn_pool")
        numerics = attention_pool.Numerics(config.num_heads, config.gelu_form, config.eps)
        x = attention_pool.pool(numerics, given, inside, x)
    elif config.features == "pool":
        x = x.mean(1)
    x = site("pool", x) if config.features == "pool" else x
    logits = site("head", linear(params["head"], x[:, 0] if config.pool == "token" else x))
    if not config.distilled:
        return logits
    return (logits + site("head_dist", linear(params["head_dist"], x[:, 1]))) / 2


def roles(config: ViTConfig) -> SiteRoles:
    """The roles of the sites of a variant."""
    read = {"operands": (config.features,), "edge_inputs": (config.features,)}
    found = _joined(ROLES, SiteRoles(**read))
    if config.pool == "attention":
        found = _joined(found, attention_pool.ROLES)
    if config.qk_norm:  # norms make other tensors of the quantized q and k, so these have sites of their own
        kept = (name for name in found.beyond_paper if name not in ("*/attn/q", "*/attn/k"))
        found = replace(found, beyond_paper=tuple(kept))
    return found


def _joined(one: SiteRoles, other: SiteRoles) -> SiteRoles:
    return SiteRoles(**{role: patterns + getattr(other, role) for role, patterns in vars(one).items()})


@cache  # equal configs share one object, and with it the programs compiled for it
def make_vit(config: ViTConfig) -> ModelParts:
    """The network as one segment, `blocks`, of `depth` identical blocks."""
    run, last = partial(block, config), None
    if config.pool == "token":
        last = partial(block, config, read=1 + config.distilled)
    blocks = Segment("blocks", config.depth, partial(embed, config), run, LINEARS, last)
    channels = CHANNELS
    if config.features == "norm":
        heads = ("head", "head_dist") if config.distilled else ("head",)
        channels = (*channels, Channels("norm", "norm", heads))
    elif config.pool == "attention":
        channels = (*channels, *attention_pool.CHANNELS)
    return ModelParts((blocks,), partial(head, config), roles(config), channels, features=config.features)
