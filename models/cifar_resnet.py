"""The ResNets of CIFAR-10 (He et al., 1512.03385, section 4.2) with parameter-free shortcuts.

Names are those of akamaster/pytorch_resnet_cifar10, where the commonly used weights come from. Three stages
of 16, 32 and 64 channels; where the width doubles, the shortcut takes every second pixel and pads the
channels with zeros (option A). Sites are those of `models.resnet`.
"""

from dataclasses import dataclass
from functools import cache, partial

import jax

from evolq_jax.models import table
from evolq_jax.models.layers import Within, conv, linear
from evolq_jax.models.resnet import BASIC_LINEARS, basic_block
from evolq_jax.typing import Array, ModelParts, Params, Segment, Site, SiteRoles

WIDTHS = (16, 32, 64)


@dataclass(frozen=True)
class CifarResNetConfig:
    """Sizes of a CIFAR ResNet: `3 * blocks` blocks of two convolutions make 6 * blocks + 2 layers."""

    blocks: int = 3
    image_size: int = 32
    channels: int = 3
    num_classes: int = 10


def enter(stage: int, params: Params, site: Site, x: Array) -> Array:
    """The stem, or the first block of the second or third stage, which halves the resolution."""
    if stage == 0:
        return site("act1", jax.nn.relu(conv(params["conv1"], site("image", x))))
    name = f"layer{stage + 1}.0"
    return basic_block(params[name], Within(site, name), x, 2)


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
    """The network as algorithms take it: a segment for each of the three stages."""
    segments = tuple(
        Segment(
            f"layer{stage + 1}",
            config.blocks - (stage > 0),
            partial(enter, stage),
            basic_block,
            BASIC_LINEARS,
        )
        for stage in range(len(WIDTHS))
    )
    return ModelParts(segments, head, ROLES, features="pool")


def params_table(config: CifarResNetConfig) -> table.Table:
    """All parameters, with the keys of their files."""

    def block(width_in: int, width: int) -> table.Table:
        first = table.conv("conv1", "conv1", "bn1", 3, width_in, width)
        return first | table.conv("conv2", "conv2", "bn2", 3, width, width)

    leaves = table.conv("conv1", "conv1", "bn1", 3, config.channels, WIDTHS[0])
    for stage, width in enumerate(WIDTHS):
        name, start = f"layer{stage + 1}", int(stage > 0)
        if start:
            leaves |= table.under(f"{name}.0", f"{name}.0", block(WIDTHS[stage - 1], width))
        leaves |= table.stacked(name, f"{name}.{{}}", block(width, width), config.blocks - start, start)
    return leaves | table.linear("linear", "linear", WIDTHS[-1], config.num_classes)


def init_params(key: Array, config: CifarResNetConfig) -> Params:
    """Random parameters."""
    return table.init_params(key, params_table(config))


AKAMASTER = table.layout(
    "akamaster/pytorch_resnet_cifar10", "layer1.0.conv1.", params_table, classes="linear/bias"
)
