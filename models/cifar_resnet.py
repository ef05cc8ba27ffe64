"""The ResNets of CIFAR-10 (He et al., 1512.03385, section 4.2) with parameter-free shortcuts.

Names are those of akamaster/pytorch_resnet_cifar10, the source of the commonly used weights. There are three
stages, of 16, 32 and 64 channels. When the width doubles, the shortcut takes every second pixel and pads the
channels with zeros (option A). Sites are those of `models.resnet`.
"""

from dataclasses import dataclass
from functools import cache, partial
from typing import ClassVar

import jax

from evolq_jax.models import table
from evolq_jax.models.layers import conv, linear
from evolq_jax.models.resnet import BASIC_LINEARS, basic_block
from evolq_jax.network.parts import ModelParts, Segment, SiteRoles
from evolq_jax.network.run import unchanged
from evolq_jax.typing import Array, Params, Site

WIDTHS = (16, 32, 64)


@dataclass(frozen=True)
class CifarResNetConfig:
    """Sizes of a CIFAR ResNet: `3 * blocks` blocks of two convolutions make 6 * blocks + 2 layers."""

    blocks: int = 3
    image_size: int = 32
    channels: int = 3
    num_classes: int = 10
    pool: ClassVar[str] = "mean"
    activation: ClassVar[str] = "relu"


def stem(params: Params, site: Site, images: Array) -> Array:
    """Normalised images [B, height, width, channels] -> [B, height, width, 16]."""
    return site("act1", jax.nn.relu(conv(params["conv1"], site("image", images))))


def head(params: Params, site: Site, x: Array) -> Array:
    """Mean over positions and classifier: [B, height, width, K] -> logits [B, C]."""
    return site("linear", linear(params["linear"], site("pool", x.mean((1, 2)))))


ROLES = SiteRoles(
    operands=("image", "act1", "*/act1", "*/act2", "pool"),
    edge_weights=("conv1/weight", "linear/weight"),
    edge_inputs=("image", "pool"),
    per_tensor=("linear",),
    addends=("*/conv2",),
)


@cache  # equal configs share one object, and with it the programs compiled for it
def make_cifar_resnet(config: CifarResNetConfig) -> ModelParts:
    """The network as segments: the first stage; then for each stage its first block, and the others."""
    segments = [Segment("layer1", config.blocks, stem, basic_block, BASIC_LINEARS)]
    for name in ("layer2", "layer3"):
        segments += [
            Segment(f"{name}.0", 1, unchanged, partial(basic_block, stride=2)),
            Segment(name, config.blocks - 1, unchanged, basic_block, BASIC_LINEARS),
        ]
    return ModelParts(tuple(segments), head, ROLES, features="pool")


def params_table(config: CifarResNetConfig) -> table.Table:
    """All parameters, with the keys of their files."""

    def block(width_in: int, width: int) -> table.Table:
        first = table.conv("conv1", "conv1", "bn1", (3, width_in, width))
        return first | table.conv("conv2", "conv2", "bn2", (3, width, width))

    leaves = table.conv("conv1", "conv1", "bn1", (3, config.channels, WIDTHS[0]))
    for stage, width in enumerate(WIDTHS):
        name, start = f"layer{stage + 1}", int(stage > 0)
        if start:
            leaves |= table.stacked(f"{name}.0", f"{name}.{{}}", block(WIDTHS[stage - 1], width), 1)
        leaves |= table.stacked(name, f"{name}.{{}}", block(width, width), config.blocks - start, first=start)
    return leaves | table.linear("linear", "linear", WIDTHS[-1], config.num_classes)


def init_params(key: Array, config: CifarResNetConfig) -> Params:
    """Random parameters."""
    return table.init_params(key, params_table(config))


AKAMASTER = table.layout(
    "akamaster/pytorch_resnet_cifar10", "layer1.0.conv1.", params_table, classes="linear/bias"
)
