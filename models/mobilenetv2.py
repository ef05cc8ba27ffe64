"""MobileNetV2 (Sandler et al., 1801.04381): inverted residuals with linear bottlenecks.

Names are timm's. The first block of each stage changes width or resolution, so it is a segment of its own
(`blocks.1.0`). The identical blocks after it are another segment (`blocks.1`). Activations are quantized
where a convolution or the classifier reads them: after each ReLU6, and at each block's output. Two kinds of
site belong to `fully_quantized` only: a block's last convolution before its sum, and the logits.
"""

from dataclasses import dataclass
from functools import cache, partial
from typing import ClassVar

from evolq_jax.models import table
from evolq_jax.models.layers import conv, linear, relu6
from evolq_jax.network.parts import BLOCK_INPUT, Linear, ModelParts, Segment, SiteRoles
from evolq_jax.network.run import unchanged
from evolq_jax.typing import Array, Params, Site

STRIDES = (1, 2, 2, 2, 1, 2, 1)  # of each stage's first block
EXPANSION = 6


@dataclass(frozen=True)
class MobileNetV2Config:
    """Sizes of a MobileNetV2; the first stage has one block."""

    depths: tuple[int, ...] = (1, 2, 3, 4, 3, 3, 1)
    widths: tuple[int, ...] = (16, 24, 32, 64, 96, 160, 320)
    stem_width: int = 32
    head_width: int = 1280
    image_size: int = 224
    channels: int = 3
    num_classes: int = 1000
    pool: ClassVar[str] = "mean"
    activation: ClassVar[str] = "relu6"


def bottleneck(params: Params, site: Site, x: Array, stride: int = 1) -> Array:
    """Expand, depthwise 3 x 3 with the stride, project. The linear output is not quantized here."""
    h = site("act1", relu6(conv(params["conv_pw"], x)))
    h = site("act2", relu6(conv(params["conv_dw"], h, stride)))
    return conv(params["conv_pwl"], h)


def block(params: Params, site: Site, x: Array) -> Array:
    """An inverted residual that keeps its shape: [B, height, width, K] -> the same."""
    return site("sum", x + site("conv_pwl", bottleneck(params, site, x)))


def first_block(stride: int, params: Params, site: Site, x: Array) -> Array:
    """The first block of each later stage: an inverted residual without a shortcut."""
    return site("sum", bottleneck(params, site, x, stride))


def separable(params: Params, site: Site, x: Array) -> Array:
    """The block of the first stage. It does not expand: depthwise 3 x 3, project."""
    return site("sum", conv(params["conv_pw"], site("act1", relu6(conv(params["conv_dw"], x)))))


def stem(params: Params, site: Site, images: Array) -> Array:
    """Normalised images [B, height, width, channels] -> [B, height / 2, width / 2, stem_width]."""
    return site("act1", relu6(conv(params["conv_stem"], site("image", images), 2)))


def head(params: Params, site: Site, x: Array) -> Array:
    """A convolution, mean over positions and classifier: [B, height, width, K] -> logits [B, C]."""
    x = site("act2", relu6(conv(params["conv_head"], x)))
    return site("classifier", linear(params["classifier"], site("pool", x.mean((1, 2)))))


ROLES = SiteRoles(
    operands=("image", "act1", "act2", "*/act1", "*/act2", "*/sum", "pool"),
    edge_weights=("conv_stem/weight", "classifier/weight"),
    edge_inputs=("image", "pool"),
    per_tensor=("classifier",),
    addends=("*/conv_pwl",),
)


LINEARS = (
    Linear("conv_pw", BLOCK_INPUT, importance="act1"),
    Linear("conv_dw", "act1", importance="act2"),
    Linear("conv_pwl", "act2", BLOCK_INPUT, normed=False),
)


@cache  # equal configs share one object, and with it the programs compiled for it
def make_mobilenetv2(config: MobileNetV2Config) -> ModelParts:
    """The network as segments: for each stage its first block, and the others."""
    segments = [Segment("blocks.0.0", 1, stem, separable)]
    for stage, depth in enumerate(config.depths[1:], start=1):
        segments += [
            Segment(f"blocks.{stage}.0", 1, unchanged, partial(first_block, STRIDES[stage])),
            Segment(f"blocks.{stage}", depth - 1, unchanged, block, LINEARS),
        ]
    return ModelParts(tuple(x for x in segments if x.length), head, ROLES, features="pool")


def params_table(config: MobileNetV2Config) -> table.Table:
    """All parameters, with timm's keys."""

    def inverted(width_in: int, width: int) -> table.Table:
        hidden = EXPANSION * width_in
        expand = table.conv("conv_pw", "conv_pw", "bn1", (1, width_in, hidden))
        depthwise = table.conv("conv_dw", "conv_dw", "bn2", (3, 1, hidden))
        return expand | depthwise | table.conv("conv_pwl", "conv_pwl", "bn3", (1, hidden, width))

    stem, (width_in, *widths) = config.stem_width, config.widths
    only = table.conv("conv_dw", "conv_dw", "bn1", (3, 1, stem))
    only |= table.conv("conv_pw", "conv_pw", "bn2", (1, stem, width_in))
    leaves = table.conv("conv_stem", "conv_stem", "bn1", (3, config.channels, stem))
    leaves |= table.stacked("blocks.0.0", "blocks.0.{}", only, 1)
    for stage, width in enumerate(widths, start=1):
        name, rest = f"blocks.{stage}", config.depths[stage] - 1
        leaves |= table.stacked(f"{name}.0", f"{name}.{{}}", inverted(width_in, width), 1)
        if rest:
            leaves |= table.stacked(name, f"{name}.{{}}", inverted(width, width), rest, first=1)
        width_in = width
    leaves |= table.conv("conv_head", "conv_head", "bn2", (1, width_in, config.head_width))
    return leaves | table.linear("classifier", "classifier", config.head_width, config.num_classes)


def init_params(key: Array, config: MobileNetV2Config) -> Params:
    """Random parameters."""
    return table.init_params(key, params_table(config))


TIMM = table.layout("timm", "conv_stem.", params_table, classes="classifier/bias")
