"""LeViT (Graham et al., 2104.01136): convolutions, then attention at three resolutions, BatchNorm throughout.

Names are timm's. A segment is a stage of identical blocks. The attention that halves the resolution and the
MLP after it are a segment of their own (`stages.1.downsample`).

The quantization sites are: the output of every convolution and linear layer, with its BatchNorm folded in,
and queries, keys and values apart; the attention's logits before and after their biases; softmax, the
context, Hardswish and the residual sums. The official Evol-Q code has the same sites, except Hardswish in a
block's attention and the second layer of the MLPs. The two heads are averaged, as at inference in the paper.
"""

from dataclasses import dataclass
from functools import cache, partial
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from evolq_jax.errors import UserError
from evolq_jax.models import table
from evolq_jax.models.layers import Within, conv, linear, merge_heads
from evolq_jax.network.parts import Linear, ModelParts, Segment, SiteRoles
from evolq_jax.network.run import unchanged
from evolq_jax.typing import Array, Params, Site

VALUE_RATIO = 2  # width of a value relative to a key's, in blocks
DOWNSAMPLE_VALUE_RATIO = 4  # and where the resolution is halved
MLP_RATIO = 2
STEM = ("conv1", "conv2", "conv3", "conv4")  # each halves the resolution


@dataclass(frozen=True)
class LeViTConfig:
    """Sizes of a LeViT with two heads (distilled)."""

    widths: tuple[int, ...] = (128, 256, 384)
    depths: tuple[int, ...] = (2, 3, 4)
    num_heads: tuple[int, ...] = (4, 6, 8)
    key_width: int = 16  # of one head
    image_size: int = 224
    channels: int = 3
    num_classes: int = 1000
    pool: ClassVar[str] = "mean"
    activation: ClassVar[str] = "hard_swish"

    def __post_init__(self) -> None:
        """Rejects image sizes that the stem cannot divide."""
        if self.image_size % 2 ** len(STEM) or self.image_size < 1:
            raise UserError(f"image_size {self.image_size} is no multiple of the stem's {2 ** len(STEM)}")

    def resolution(self, stage: int) -> int:
        """Tokens along each side of a stage."""
        return -(-self.image_size // 2 ** (len(STEM) + stage))

    def downsample_heads(self, stage: int) -> int:
        """Heads of the attention before a stage."""
        return self.widths[stage - 1] // self.key_width


def bias_index(resolution: int, stride: int) -> np.ndarray:
    """The bias of each (query, key), by their distances along both axes: [queries, keys]."""

    def grid(step: int) -> np.ndarray:
        at = np.arange(0, resolution, step)
        return np.stack(np.meshgrid(at, at, indexing="ij")).reshape(2, -1)

    distance = np.abs(grid(stride)[:, :, None] - grid(1)[:, None])
    return distance[0] * resolution + distance[1]


def to_heads(x: Array, num_heads: int) -> Array:
    """[B, N, H * d] -> [B, H, N, d]."""
    return x.reshape(*x.shape[:2], num_heads, -1).swapaxes(1, 2)


class Stage(NamedTuple):
    """A stage of the network: blocks at one resolution."""

    config: LeViTConfig
    number: int


class Heads(NamedTuple):
    """What the heads of an attention work on."""

    q: Array  # queries [B, H, M, d]
    k: Array  # keys [B, H, N, d]
    v: Array  # values [B, H, N, e]


def attend(params: Params, site: Site, heads: Heads, index: np.ndarray) -> Array:
    """Attention with biases by distance, then Hardswish and projection.

    Args:
      params: the biases and the projection.
      site: the site, inside the attention module.
      heads: queries, keys and values.
      index: of the bias of each query and key [M, N].

    Returns:
      [B, M, D].
    """
    q, k, v = (site(name, x) for name, x in heads._asdict().items())
    logits = site("logits", jnp.einsum("bhnd,bhmd->bhnm", q, k) * q.shape[-1] ** -0.5)
    biases = params["attention_biases"][:, index]
    weights = site.softmax("softmax", "biased_logits", site("biased_logits", logits + biases))
    context = site("context", merge_heads(jnp.einsum("bhnm,bhmd->bhnd", weights, v)))
    return site("proj", linear(params["proj"], site("act", jax.nn.hard_swish(context))))


def attention(stage: Stage, params: Params, site: Site, x: Array) -> Array:
    """Multi-head self-attention: [B, N, D] -> [B, N, D]."""
    config, number = stage
    qkv = to_heads(linear(params["qkv"], x), config.num_heads[number])
    q, k, v = jnp.split(qkv, (config.key_width, 2 * config.key_width), axis=-1)
    return attend(params, site, Heads(q, k, v), bias_index(config.resolution(number), 1))


def subsampling_attention(stage: Stage, params: Params, site: Site, x: Array) -> Array:
    """Attention whose queries are every second token along both axes: [B, N, in] -> [B, M, out]."""
    config, number = stage
    heads, side = config.downsample_heads(number), config.resolution(number - 1)
    k, v = jnp.split(to_heads(linear(params["kv"], x), heads), (config.key_width,), axis=-1)
    kept = x.reshape(-1, side, side, x.shape[-1])[:, ::2, ::2].reshape(x.shape[0], -1, x.shape[-1])
    q = to_heads(linear(params["q"], kept), heads)
    return attend(params, site, Heads(q, k, v), bias_index(side, 2))


def mlp(params: Params, site: Site, x: Array) -> Array:
    """Two-layer perceptron with Hardswish: [B, N, D] -> [B, N, D]."""
    hidden = site("act", jax.nn.hard_swish(site("ln1", linear(params["ln1"], x))))
    return site("ln2", linear(params["ln2"], hidden))


def block(stage: Stage, params: Params, site: Site, x: Array) -> Array:
    """Attention and MLP, each added to its input: [B, N, D] -> [B, N, D]."""
    x = site("residual_in", x)
    x = site("residual_mid", x + attention(stage, params["attn"], Within(site, "attn"), x))
    return x + mlp(params["mlp"], Within(site, "mlp"), x)


def downsample(stage: Stage, params: Params, site: Site, x: Array) -> Array:
    """Leads into a stage: subsampling attention, then an MLP added to it: [B, N, in] -> [B, M, out]."""
    attn = Within(site, "attn_downsample")
    x = subsampling_attention(stage, params["attn_downsample"], attn, site("residual_in", x))
    return x + mlp(params["mlp"], Within(site, "mlp"), x)


def stem(params: Params, site: Site, images: Array) -> Array:
    """Normalised images [B, height, width, channels] -> tokens [B, N, D]."""
    x = site("image", images)
    for number, name in enumerate(STEM, start=1):
        x = site(f"stem/{name}", conv(params["stem"][name], x, 2))
        if name != STEM[-1]:
            x = site(f"stem/act{number}", jax.nn.hard_swish(x))
    return x.reshape(x.shape[0], -1, x.shape[-1])


def head(params: Params, site: Site, x: Array) -> Array:
    """Mean over tokens and the mean of both classifiers: [B, N, D] -> logits [B, C]."""
    x = site("pool", site("residual_out", x).mean(1))
    return (site("head", linear(params["head"], x)) + site("head_dist", linear(params["head_dist"], x))) / 2


ROLES = SiteRoles(
    operands=(
        "image", "stem/act*", "*/residual_in", "*/residual_mid", "*/q", "*/k", "*/v", "*/softmax", "*/act",
        "*/attn_downsample/proj", "pool",
    ),
    residual=("*/residual_in", "*/residual_mid", "residual_out"),
    edge_weights=("stem/conv1/weight", "head/weight", "head_dist/weight"),
    edge_inputs=("image", "pool"),
    per_tensor=("*/logits", "*/softmax", "head", "head_dist"),
    addends=("*/residual_in", "*/residual_mid", "*/attn/proj", "*/mlp/ln2"),
)  # fmt: skip


LINEARS = (
    Linear("attn/qkv", "residual_in", importance=None),  # its output is split before it is a site
    Linear("attn/proj", "attn/act", "residual_in", normed=False),
    Linear("mlp/ln1", "residual_mid"),
    Linear("mlp/ln2", "mlp/act", "residual_mid", normed=False),
)


@cache  # equal configs share one object, and with it the programs compiled for it
def make_levit(config: LeViTConfig) -> ModelParts:
    """The network as segments: one for each stage, and one for the downsampling before each later stage."""
    segments: list[Segment] = []
    for stage, depth in enumerate(config.depths):
        name, enter = f"stages.{stage}", unchanged if stage else stem
        if stage:
            segments += [
                Segment(f"{name}.downsample", 1, unchanged, partial(downsample, Stage(config, stage)))
            ]
        segments += [Segment(name, depth, enter, partial(block, Stage(config, stage)), LINEARS)]
    return ModelParts(tuple(segments), head, ROLES, features="pool")


def mlp_table(width: int) -> table.Table:
    """The parameters of a perceptron."""
    hidden = MLP_RATIO * width
    return table.linear_bn("mlp/ln1", "mlp.ln1", width, hidden) | table.linear_bn(
        "mlp/ln2", "mlp.ln2", hidden, width
    )


def block_table(config: LeViTConfig, stage: int) -> table.Table:
    """The parameters of one block of a stage."""
    d, heads = config.widths[stage], config.num_heads[stage]
    key, value = heads * config.key_width, VALUE_RATIO * heads * config.key_width
    return (
        {"attn/attention_biases": table.Leaf("attn.attention_biases", (heads, config.resolution(stage) ** 2))}
        | table.linear_bn("attn/qkv", "attn.qkv", d, 2 * key + value)
        | table.linear_bn("attn/proj", "attn.proj.ln", value, d)
        | mlp_table(d)
    )


def downsample_table(config: LeViTConfig, stage: int) -> table.Table:
    """The parameters of the downsampling before a stage."""
    width_in, width, heads = config.widths[stage - 1], config.widths[stage], config.downsample_heads(stage)
    key, value = heads * config.key_width, DOWNSAMPLE_VALUE_RATIO * heads * config.key_width
    biases = table.Leaf("attention_biases", (heads, config.resolution(stage - 1) ** 2))
    attn = (
        {"attention_biases": biases}
        | table.linear_bn("kv", "kv", width_in, key + value)
        | table.linear_bn("q", "q.ln", width_in, key)
        | table.linear_bn("proj", "proj.ln", value, width)
    )
    return table.under("attn_downsample", "attn_downsample", attn) | mlp_table(width)


def params_table(config: LeViTConfig) -> table.Table:
    """All parameters, with timm's keys."""
    leaves: table.Table = {}
    entering, first = config.channels, config.widths[0]
    for number, name in enumerate(STEM, start=1):
        width, key = first // 2 ** (len(STEM) - number), f"stem.{name}"
        leaves |= table.conv(f"stem/{name}", f"{key}.linear", f"{key}.bn", (3, entering, width))
        entering = width
    for stage, depth in enumerate(config.depths):
        name = f"stages.{stage}"
        if stage:
            between = downsample_table(config, stage)
            leaves |= table.stacked(f"{name}.downsample", "stages.{}.downsample", between, 1, first=stage)
        leaves |= table.stacked(name, f"{name}.blocks.{{}}", block_table(config, stage), depth)
    for name in ("head", "head_dist"):
        leaves |= table.bn_linear(name, name, config.widths[-1], config.num_classes)
    return leaves


def init_params(key: Array, config: LeViTConfig) -> Params:
    """Random parameters."""
    return table.init_params(key, params_table(config))


TIMM = table.layout("timm", "stem.conv1.linear.", params_table)
