"""Swin transformers (Liu et al., 2103.14030): attention in windows, shifted in every second block.

Names are timm's. A segment is a stage. Its stacked unit is a pair of blocks: `regular` windows, then
`shifted` ones.

Quantization sites are those of the official Evol-Q code, named as in `models.vit`. Beside those of a ViT
there are: the table of position biases, the biased logits, and the stream and the norm of patch merging. The
output of the reduction is quantized where the next block receives it. The output of patch embedding's norm
is quantized already, and the first block quantizes it once more as its stream. The released code repeats the
stream's scales for the four merged neighbours; here the merged tensor has its own scales.
"""

import re
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
import numpy as np

from evolq_jax.errors import UserError
from evolq_jax.models import table
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
from evolq_jax.typing import Array, Params, Site

MASKED = -100.0  # added to the logits of tokens that a shift has brought together


@dataclass(frozen=True)
class SwinConfig:
    """Sizes of a Swin transformer and the numerical form of its checkpoint."""

    first_width: int = 96  # of the first stage; doubles from stage to stage
    depths: tuple[int, ...] = (2, 2, 6, 2)
    num_heads: tuple[int, ...] = (3, 6, 12, 24)
    window: int = 7
    patch_size: int = 4
    image_size: int = 224
    channels: int = 3
    num_classes: int = 1000
    gelu_form: str = "erf"
    eps: float = 1e-5
    pool: ClassVar[str] = "mean"

    def __post_init__(self) -> None:
        """Rejects image sizes that windows cannot divide, and stages that are not made of pairs."""
        unit = self.patch_size * self.window * 2 ** (len(self.depths) - 1)
        if self.image_size % unit or self.image_size < unit:
            raise UserError(
                f"image_size {self.image_size} is no multiple of {unit}: windows of {self.window} x "
                f"{self.window} must divide the {self.patch_size}-pixel patches of every stage"
            )
        if any(depth % 2 for depth in self.depths):
            raise UserError(f"depths {self.depths} must be even: blocks come in pairs")

    def resolution(self, stage: int) -> int:
        """Tokens along each side of a stage."""
        return self.image_size // self.patch_size // 2**stage


def shift_mask(resolution: int, window: int, shift: int) -> np.ndarray:
    """`MASKED` for each query and key of a shifted window that were not neighbours: [windows, N, N]."""
    at = np.arange(resolution)
    band = (at >= resolution - window).astype(int) + (at >= resolution - shift)
    region = (3 * band[:, None] + band).reshape(1, resolution, resolution, 1)
    tokens = to_windows(region, window)[..., 0]
    return np.where(tokens[:, :, None] != tokens[:, None], np.float32(MASKED), np.float32(0))


def to_windows(x: Any, window: int) -> Any:
    """[B, height, width, D] -> [B * windows, N, D]."""
    b, h, w, d = x.shape
    x = x.reshape(b, h // window, window, w // window, window, d).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(-1, window * window, d)


def from_windows(x: Array, window: int, resolution: int) -> Array:
    """The inverse of `to_windows`."""
    along, d = resolution // window, x.shape[-1]
    x = x.reshape(-1, along, along, window, window, d).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(-1, resolution, resolution, d)


def shifted_windows(window: int, shift: int, x: Array) -> Array:
    """`to_windows` of the image moved up and left."""
    return to_windows(jnp.roll(x, (-shift, -shift), (1, 2)), window)


class Stage(NamedTuple):
    """A stage of the network: blocks at one resolution."""

    config: SwinConfig
    number: int


def attention(stage: Stage, params: Params, site: Site, x: Array, *, shift: int) -> Array:
    """Multi-head self-attention within windows: [B, height, width, D] -> the same."""
    config, number = stage
    resolution, window = config.resolution(number), config.window
    x = shifted_windows(window, shift, x)
    q, k, v = jnp.split(site("qkv", linear(params["qkv"], x)), 3, axis=-1)
    q, k, v = site("q", q), site("k", k), site("v", v)
    q, k, v = (split_heads(t, config.num_heads[number]) for t in (q, k, v))
    logits = site("logits", jnp.einsum("bhnd,bhmd->bhnm", q, k) * q.shape[-1] ** -0.5)
    biases = site("relative_position_bias_table", params["relative_position_bias_table"])
    biases = biases[relative_position_index(window)].transpose(2, 0, 1)  # [H, N, N]
    logits = site("biased_logits", logits + biases)
    if shift:
        mask = shift_mask(resolution, window, shift)
        by_window = logits.reshape(-1, len(mask), *logits.shape[1:]) + mask[:, None]
        logits = by_window.reshape(logits.shape)
    weights = site.softmax("softmax", "biased_logits", logits)
    context = site("context", merge_heads(jnp.einsum("bhnm,bhmd->bhnd", weights, v)))
    out = from_windows(site("proj", linear(params["proj"], context)), window, resolution)
    return jnp.roll(out, (shift, shift), (1, 2))


def block(stage: Stage, params: Params, site: Site, x: Array, *, shift: int) -> Array:
    """One pre-norm block with windows shifted by `shift`: [B, height, width, D] -> the same."""
    config = stage.config
    x = site("residual_in", x)
    h = site.layer_norm("norm1", "residual_in", x, params["norm1"], eps=config.eps)
    h = attention(stage, params["attn"], Within(site, "attn"), h, shift=shift)
    x = site("residual_mid", x + h)
    h = site.layer_norm("norm2", "residual_mid", x, params["norm2"], eps=config.eps)
    return x + mlp(params["mlp"], site, h, config.gelu_form)


def shifted_by(config: SwinConfig, stage: int) -> int:
    """The shift of the second block of each pair. A single window is not shifted."""
    return config.window // 2 if config.resolution(stage) > config.window else 0


def pair(stage: Stage, params: Params, site: Site, x: Array) -> Array:
    """A block with regular windows and one with shifted windows: [B, height, width, D] -> the same."""
    x = block(stage, params["regular"], Within(site, "regular"), x, shift=0)
    shift = shifted_by(stage.config, stage.number)
    return block(stage, params["shifted"], Within(site, "shifted"), x, shift=shift)


def enter(stage: Stage, params: Params, site: Site, x: Array) -> Array:
    """Patch embedding of images; patch merging, [B, height, width, D] -> [B, height / 2, width / 2, 2 D]."""
    config, number = stage
    if number == 0:
        norm, side = params["patch_embed"]["norm"], config.resolution(0)
        x = site("patch_embed/proj", patch_embed(params["patch_embed"]["proj"], site("image", x)))
        source = "patch_embed/proj"
        x = site.layer_norm("patch_embed/norm", source, x, norm, eps=config.eps)
        return x.reshape(-1, side, side, config.first_width)
    name = f"layers.{number}.downsample"
    norm, inside = params[name]["norm"], Within(site, name)
    b, h, w, d = x.shape
    x = x.reshape(b, h // 2, 2, w // 2, 2, d).transpose(0, 1, 3, 4, 2, 5)  # neighbours column by column
    x = inside("residual_in", x.reshape(b, h // 2, w // 2, 4 * d))
    x = inside.layer_norm("norm", "residual_in", x, norm, eps=config.eps)
    return linear(params[name]["reduction"], x)


def head(config: SwinConfig, params: Params, site: Site, x: Array) -> Array:
    """Final norm, mean over tokens and classifier: [B, height, width, D] -> logits [B, C]."""
    x = site("residual_out", x)
    x = site.layer_norm("norm", "residual_out", x, params["norm"], eps=config.eps)
    return site("head", linear(params["head"], site("pool", x.mean((1, 2)))))


ROLES = SiteRoles(
    operands=(
        "image", "*/norm1", "*/attn/q", "*/attn/k", "*/attn/v", "*/attn/softmax", "*/attn/context",
        "*/norm2", "*/mlp/gelu", "*.downsample/norm", "pool",
    ),
    residual=("*/residual_in", "*/residual_mid", "residual_out"),
    edge_weights=("patch_embed/proj/weight", "head/weight"),
    edge_inputs=("image", "pool"),
    per_tensor=("*/logits", "*/softmax", "head"),
    beyond_paper=("*/attn/q", "*/attn/k", "*/attn/v", "*/mlp/fc1"),
    gelu=("*/mlp/gelu",),
    addends=(
        "*/regular/residual_*", "*/shifted/residual_*", "*/attn/proj", "*/mlp/fc2",
    ),
)  # fmt: skip


@cache  # equal configs share one object, and with it the programs compiled for it
def make_swin(config: SwinConfig) -> ModelParts:
    """The network as segments: one for each stage, made of pairs of blocks."""
    segments = tuple(
        Segment(
            f"layers.{stage}",
            depth // 2,
            partial(enter, Stage(config, stage)),
            partial(pair, Stage(config, stage)),
            linears=linears(config, stage),
        )
        for stage, depth in enumerate(config.depths)
    )
    return ModelParts(segments, partial(head, config), ROLES, channels(config), features="pool")


def linears(config: SwinConfig, stage: int) -> tuple[Linear, ...]:
    """The linear layers of a pair, in order."""
    found: list[Linear] = []
    for member, shift in (("regular", 0), ("shifted", shifted_by(config, stage))):
        arrange = partial(shifted_windows, config.window, shift)
        found += [
            # its output is in windows, its input is not
            Linear(f"{member}/attn/qkv", f"{member}/norm1", importance=f"{member}/norm1"),
            Linear(f"{member}/attn/proj", f"{member}/attn/context", f"{member}/residual_in", arrange=arrange),
            Linear(f"{member}/mlp/fc1", f"{member}/norm2"),
            Linear(f"{member}/mlp/fc2", f"{member}/mlp/gelu", f"{member}/residual_mid"),
        ]
    return tuple(found)


def channels(config: SwinConfig) -> tuple[Channels, ...]:
    """Every activation whose channels can be rescaled, as in `models.vit`, and that of patch merging."""
    found: list[Channels] = []
    for stage in range(len(config.depths)):
        if stage:
            name = f"layers.{stage}.downsample"
            found.append(Channels(f"{name}/norm", f"{name}/norm", (f"{name}/reduction",)))
        for member in ("regular", "shifted"):
            name = f"layers.{stage}/{member}"
            qkv, values = f"{name}/attn/qkv", f"{name}/attn/v"
            found += [
                Channels(f"{name}/norm1", f"{name}/norm1", (qkv,)),
                Channels(f"{name}/attn/context", qkv, (f"{name}/attn/proj",), (qkv, values)),
                Channels(f"{name}/norm2", f"{name}/norm2", (f"{name}/mlp/fc1",)),
            ]
    return tuple(found)


def block_table(config: SwinConfig, stage: int) -> table.Table:
    """The parameters of one block of a stage."""
    d, name = config.first_width * 2**stage, "relative_position_bias_table"
    positions = table.Leaf(f"attn.{name}", ((2 * config.window - 1) ** 2, config.num_heads[stage]))
    return (
        table.norm("norm1", "norm1", d)
        | {f"attn/{name}": positions}
        | table.linear("attn/qkv", "attn.qkv", d, 3 * d)
        | table.linear("attn/proj", "attn.proj", d, d)
        | table.norm("norm2", "norm2", d)
        | table.linear("mlp/fc1", "mlp.fc1", d, 4 * d)
        | table.linear("mlp/fc2", "mlp.fc2", 4 * d, d)
    )


def params_table(config: SwinConfig) -> table.Table:
    """All parameters, with timm's keys."""
    sizes = config.patch_size, config.channels, config.first_width
    leaves = table.conv("patch_embed/proj", "patch_embed.proj", None, sizes)
    leaves |= table.norm("patch_embed/norm", "patch_embed.norm", config.first_width)
    for stage, depth in enumerate(config.depths):
        name, d = f"layers.{stage}", config.first_width * 2**stage
        if stage:
            merging = table.norm("norm", "norm", 2 * d)
            merging |= table.linear("reduction", "reduction", 2 * d, d, bias=False)
            leaves |= table.under(f"{name}.downsample", f"{name}.downsample", merging)
        for first, member in enumerate(("regular", "shifted")):
            unit, path = block_table(config, stage), f"{name}/{member}"
            leaves |= table.stacked(path, f"{name}.blocks.{{}}", unit, depth // 2, first=first, step=2)
    d = config.first_width * 2 ** (len(config.depths) - 1)
    return leaves | table.norm("norm", "norm", d) | table.linear("head", "head.fc", d, config.num_classes)


def init_params(key: Array, config: SwinConfig) -> Params:
    """Random parameters."""
    return table.init_params(key, params_table(config))


def _original_key(key: str) -> str:
    """The timm key for a key of the authors, who put merging at the end of the stage before."""
    key = re.sub(r"^layers\.(\d+)\.downsample", lambda m: f"layers.{int(m[1]) + 1}.downsample", key)
    return table.torch_key(re.sub(r"^head\.", "head.fc.", key))


SWIN_LAYOUTS = (
    table.layout("timm", "head.fc.", params_table),
    table.layout("microsoft/Swin-Transformer", "layers.0.blocks.0.", params_table, rename=_original_key),
)
