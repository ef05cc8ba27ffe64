"""ResNets (He et al., 1512.03385), and the residual blocks that other CNNs are made of.

Variants are options of `ResNetConfig`: C, D, S and T (1812.01187), ResNeXt (1611.05431) and wide ResNets
(1605.07146).

Names are timm's. The first block of a stage changes width or resolution, so it is a segment of its own
(`layer2.0`). The identical blocks after it are another segment (`layer2`). Activations are quantized where a
convolution or the classifier reads them, that is after each ReLU (BRECQ, Li et al., 2102.05426). Two kinds of
site belong to `fully_quantized` only: what the residual sum adds, and the logits.
"""

from dataclasses import dataclass
from functools import cache, partial
from typing import ClassVar, Protocol

import jax
import jax.numpy as jnp

from evolq_jax.models import table
from evolq_jax.models.layers import conv, linear, max_pool, mean_pool
from evolq_jax.network.parts import BLOCK_INPUT, Linear, ModelParts, Segment, SiteRoles
from evolq_jax.network.run import unchanged
from evolq_jax.typing import Array, Params, Site


class Block(Protocol):
    """A residual block. Its first convolution of size 3 has the stride."""

    def __call__(self, params: Params, site: Site, x: Array, stride: int = 1) -> Array:
        """[B, height, width, in] -> [B, height / stride, width / stride, out]."""
        ...


@dataclass(frozen=True)
class ResNetConfig:
    """Sizes of a ResNet for ImageNet."""

    depths: tuple[int, ...] = (2, 2, 2, 2)
    bottleneck: bool = False
    stem_width: int = 64
    groups: int = 1  # of the 3 x 3 convolutions of bottlenecks: ResNeXt (1611.05431)
    group_width: int = 64  # channels of a group for every 64 of the stem: wide ResNet (1605.07146)
    deep_stem: tuple[int, int, int] | None = None  # channels of three 3 x 3 convolutions instead of one 7 x 7
    pooled_shortcut: bool = False  # a mean instead of the shortcut's stride: ResNet-D (1812.01187)
    image_size: int = 224
    channels: int = 3
    num_classes: int = 1000
    pool: ClassVar[str] = "mean"
    activation: ClassVar[str] = "relu"

    @property
    def block(self) -> Block:
        """The kind of block."""
        return bottleneck_block if self.bottleneck else basic_block

    def widths(self, stage: int) -> tuple[int, int, int]:
        """The channels of a stage: received, inside its blocks, and given."""
        factor, width = 4 if self.bottleneck else 1, self.stem_width * 2**stage
        inside = width * self.group_width // 64 * self.groups
        stem = self.deep_stem[-1] if self.deep_stem else width
        return (factor * width // 2 if stage else stem), inside, factor * width

    def stacked_from(self, stage: int) -> int:
        """0 if the first block of a stage is like the others, else 1."""
        return int(stage > 0 or self.bottleneck)


def basic_block(params: Params, site: Site, x: Array, stride: int = 1) -> Array:
    """Two 3 x 3 convolutions: [B, height, width, in] -> [B, height / stride, width / stride, out]."""
    h = site("act1", jax.nn.relu(conv(params["conv1"], x, stride)))
    h = site("conv2", conv(params["conv2"], h))
    return site("act2", jax.nn.relu(h + shortcut(params, site, x, stride)))


def bottleneck_block(params: Params, site: Site, x: Array, stride: int = 1) -> Array:
    """1 x 1, 3 x 3 (grouped in RegNet; it has the stride) and 1 x 1 convolutions; shapes as above."""
    h = site("act1", jax.nn.relu(conv(params["conv1"], x)))
    h = site("act2", jax.nn.relu(conv(params["conv2"], h, stride)))
    h = site("conv3", conv(params["conv3"], h))
    return site("act3", jax.nn.relu(h + shortcut(params, site, x, stride)))


# Where a ReLU follows, its output says which positions count.
BASIC_LINEARS = (
    Linear("conv1", BLOCK_INPUT, importance="act1"),
    Linear("conv2", "act1", BLOCK_INPUT, normed=False),
)
BOTTLENECK_LINEARS = (
    Linear("conv1", BLOCK_INPUT, importance="act1"),
    Linear("conv2", "act1", importance="act2"),
    Linear("conv3", "act2", BLOCK_INPUT, normed=False),
)


def shortcut(params: Params, site: Site, x: Array, stride: int) -> Array:
    """The shortcut of a block: its input, a convolution of it or of its means (`downsample`), or option A.

    Option A is for CIFAR. A block with a stride but without that convolution takes every second pixel, and
    doubles the channels with zeros on both sides.
    """
    if "downsample" in params:
        return site("downsample", conv(params["downsample"], x, stride))
    if "pooled_downsample" in params:
        x = site("pool", mean_pool(x, stride)) if stride > 1 else x
        return site("downsample", conv(params["pooled_downsample"], x))
    if stride == 1:
        return x
    pad = x.shape[-1] // 2
    return jnp.pad(x[:, ::stride, ::stride], ((0, 0), (0, 0), (0, 0), (pad, pad)))


def stem(params: Params, site: Site, images: Array) -> Array:
    """Normalised images [B, height, width, channels] -> [B, height / 4, width / 4, stem_width]."""
    x, first = site("image", images), params["conv1"]
    if "0" in first:
        x = site("conv1/act0", jax.nn.relu(conv(first["0"], x, 2)))
        x = site("conv1/act3", jax.nn.relu(conv(first["3"], x)))
        x = site("act1", jax.nn.relu(conv(first["6"], x)))
    else:
        x = site("act1", jax.nn.relu(conv(first, x, 2)))
    return max_pool(x, size=3, stride=2)


def head(params: Params, site: Site, x: Array) -> Array:
    """Mean over positions and classifier: [B, height, width, K] -> logits [B, C]."""
    return site("fc", linear(params["fc"], site("pool", x.mean((1, 2)))))


ROLES = SiteRoles(
    operands=(
        "image", "conv1/act0", "conv1/act3", "act1", "*/act1", "*/act2", "*/act3", "*/pool", "pool",
    ),
    edge_weights=("conv1/weight", "conv1/0/weight", "fc/weight"),
    edge_inputs=("image", "pool"),
    per_tensor=("fc",),
    addends=("*/conv2", "*/conv3", "*/downsample"),
)  # fmt: skip


@cache  # equal configs share one object, and with it the programs compiled for it
def make_resnet(config: ResNetConfig) -> ModelParts:
    """The network as segments: for each stage its first block, if it differs, and the others."""
    block, linears = config.block, BOTTLENECK_LINEARS if config.bottleneck else BASIC_LINEARS
    segments: list[Segment] = []
    for stage, depth in enumerate(config.depths):
        name, enter, start = f"layer{stage + 1}", unchanged if stage else stem, config.stacked_from(stage)
        if start:
            segments += [Segment(f"{name}.0", 1, enter, partial(block, stride=2 if stage else 1))]
            enter = unchanged
        segments += [Segment(name, depth - start, enter, block, linears)] if depth > start else []
    return ModelParts(tuple(segments), head, ROLES, features="pool")


def block_table(config: ResNetConfig, stage: int, *, first: bool) -> table.Table:
    """The parameters of one block of a stage."""
    width_in, inside, width = config.widths(stage)
    entering = width_in if first else width
    if config.bottleneck:
        sizes = ((1, entering, inside), (3, inside // config.groups, inside), (1, inside, width))
    else:
        sizes = ((3, entering, inside), (3, inside, width))
    block: table.Table = {}
    for number, size in enumerate(sizes, start=1):
        block |= table.conv(f"conv{number}", f"conv{number}", f"bn{number}", size)
    if first:
        name, at = ("pooled_downsample", 1) if config.pooled_shortcut else ("downsample", 0)
        block |= table.conv(name, f"downsample.{at}", f"downsample.{at + 1}", (1, entering, width))
    return block


def stem_table(config: ResNetConfig) -> table.Table:
    """The parameters of the stem."""
    if config.deep_stem is None:
        return table.conv("conv1", "conv1", "bn1", (7, config.channels, config.stem_width))
    first, second, third = config.deep_stem
    leaves = table.conv("conv1/0", "conv1.0", "conv1.1", (3, config.channels, first))
    leaves |= table.conv("conv1/3", "conv1.3", "conv1.4", (3, first, second))
    return leaves | table.conv("conv1/6", "conv1.6", "bn1", (3, second, third))


def params_table(config: ResNetConfig) -> table.Table:
    """All parameters, with timm's keys."""
    leaves = stem_table(config)
    for stage, depth in enumerate(config.depths):
        name, start = f"layer{stage + 1}", config.stacked_from(stage)
        if start:
            leaves |= table.stacked(f"{name}.0", f"{name}.{{}}", block_table(config, stage, first=True), 1)
        if depth > start:
            rest = block_table(config, stage, first=False)
            leaves |= table.stacked(name, f"{name}.{{}}", rest, depth - start, first=start)
    return leaves | table.linear("fc", "fc", config.widths(len(config.depths) - 1)[2], config.num_classes)


def init_params(key: Array, config: ResNetConfig) -> Params:
    """Random parameters."""
    return table.init_params(key, params_table(config))


TIMM = table.layout("timm or torchvision", "layer1.0.conv1.", params_table, classes="fc/bias")
