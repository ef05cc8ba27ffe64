"""RegNetX (Radosavovic et al., 2003.13678): bottlenecks of grouped convolutions that do not narrow.

Names are timm's. The first block of each stage has the stride, so it is a segment of its own (`s1.b1`). The
identical blocks after it are another segment (`s1`). Sites are those of `models.resnet`.
"""

from dataclasses import dataclass
from functools import cache, partial
from typing import ClassVar

import jax

from evolq_jax.models import table
from evolq_jax.models.layers import conv, linear
from evolq_jax.models.resnet import BOTTLENECK_LINEARS, bottleneck_block
from evolq_jax.network.parts import ModelParts, Segment, SiteRoles
from evolq_jax.network.run import unchanged
from evolq_jax.typing import Array, Params, Site


@dataclass(frozen=True)
class RegNetConfig:
    """Sizes of a RegNetX; the defaults are those of 3.2 GF (table 14 of the paper)."""

    widths: tuple[int, ...] = (96, 192, 432, 1008)
    depths: tuple[int, ...] = (2, 6, 15, 2)
    group_width: int = 48
    stem_width: int = 32
    image_size: int = 224
    channels: int = 3
    num_classes: int = 1000
    pool: ClassVar[str] = "mean"
    activation: ClassVar[str] = "relu"


def stem(params: Params, site: Site, images: Array) -> Array:
    """Normalised images [B, height, width, channels] -> [B, height / 2, width / 2, stem_width]."""
    return site("stem", jax.nn.relu(conv(params["stem"], site("image", images), 2)))


def head(params: Params, site: Site, x: Array) -> Array:
    """Mean over positions and classifier: [B, height, width, K] -> logits [B, C]."""
    return site("head", linear(params["head"], site("pool", x.mean((1, 2)))))


ROLES = SiteRoles(
    operands=("image", "stem", "*/act1", "*/act2", "*/act3", "pool"),
    edge_weights=("stem/weight", "head/weight"),
    edge_inputs=("image", "pool"),
    per_tensor=("head",),
    addends=("*/conv3", "*/downsample"),
)


@cache  # equal configs share one object, and with it the programs compiled for it
def make_regnet(config: RegNetConfig) -> ModelParts:
    """The network as segments: for each stage its first block, and the others."""
    segments: list[Segment] = []
    for stage, depth in enumerate(config.depths, start=1):
        enter = stem if stage == 1 else unchanged
        segments += [
            Segment(f"s{stage}.b1", 1, enter, partial(bottleneck_block, stride=2)),
            Segment(f"s{stage}", depth - 1, unchanged, bottleneck_block, BOTTLENECK_LINEARS),
        ]
    return ModelParts(tuple(x for x in segments if x.length), head, ROLES, features="pool")


def params_table(config: RegNetConfig) -> table.Table:
    """All parameters, with timm's keys."""

    def conv_bn(path: str, size: int, width_in: int, width: int) -> table.Table:
        return table.conv(path, f"{path}.conv", f"{path}.bn", (size, width_in, width))

    def block(width_in: int, width: int) -> table.Table:
        group = min(config.group_width, width)
        leaves = conv_bn("conv1", 1, width_in, width) | conv_bn("conv2", 3, group, width)
        return leaves | conv_bn("conv3", 1, width, width)

    leaves, width_in = conv_bn("stem", 3, config.channels, config.stem_width), config.stem_width
    for stage, (width, depth) in enumerate(zip(config.widths, config.depths, strict=True), start=1):
        first = block(width_in, width) | conv_bn("downsample", 1, width_in, width)
        leaves |= table.stacked(f"s{stage}.b1", f"s{stage}.b{{}}", first, 1, first=1)
        if depth > 1:
            leaves |= table.stacked(f"s{stage}", f"s{stage}.b{{}}", block(width, width), depth - 1, first=2)
        width_in = width
    return leaves | table.linear("head", "head.fc", width_in, config.num_classes)


def init_params(key: Array, config: RegNetConfig) -> Params:
    """Random parameters."""
    return table.init_params(key, params_table(config))


TIMM = table.layout("timm", "s1.b1.conv1.", params_table)
