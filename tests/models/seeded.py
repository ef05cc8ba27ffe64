"""A ViT with the recipe's weights under timm's keys, and the other layouts made from it."""

import re

import jax
import numpy as np

from evolq_jax.models.vit import ViTConfig
from evolq_jax.network.network import Network
from evolq_jax.network.reading import float_reading
from evolq_jax.network.run import forward
from tests.models.recipe import Arrays, weight

TINY = ViTConfig(image_size=8, patch_size=4, width=12, depth=2, num_heads=3, mlp_width=20, num_classes=5)


def timm_vit(config: ViTConfig) -> Arrays:
    """A whole ViT under timm's keys."""
    width, patch, mlp, classes = config.width, config.patch_size, config.mlp_width, config.num_classes
    shapes: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, width),
        "pos_embed": (1, config.num_tokens, width),
        "patch_embed.proj.weight": (width, config.channels, patch, patch),
        "patch_embed.proj.bias": (width,),
    }
    linears = [("norm", (width,)), ("head", (classes, width))]
    for i in range(config.depth):
        linears += [(f"blocks.{i}.norm1", (width,)), (f"blocks.{i}.norm2", (width,))]
        linears += [(f"blocks.{i}.attn.qkv", (3 * width, width)), (f"blocks.{i}.attn.proj", (width, width))]
        linears += [(f"blocks.{i}.mlp.fc1", (mlp, width)), (f"blocks.{i}.mlp.fc2", (width, mlp))]
    if config.distilled:
        shapes["dist_token"] = (1, 1, width)
        linears.append(("head_dist", (classes, width)))
    for name, shape in linears:
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    return {key: weight(key, shape) for key, shape in shapes.items()}


def hugging_face(timm: Arrays, prefix: str = "") -> Arrays:
    """The arrays as transformers' ViT/DeiTForImageClassification holds them."""
    distilled = "dist_token" in timm
    out: Arrays = {}
    for key, array in timm.items():
        name = key
        if match := re.fullmatch(r"blocks\.(\d+)\.attn\.qkv\.(weight|bias)", key):
            for part, value in zip(("query", "key", "value"), np.split(array, 3), strict=True):
                out[f"{prefix}encoder.layer.{match[1]}.attention.attention.{part}.{match[2]}"] = value
            continue
        for old, new in (
            (r"^blocks\.", "encoder.layer."),
            (r"attn\.proj", "attention.output.dense"),
            ("norm1", "layernorm_before"),
            ("norm2", "layernorm_after"),
            (r"mlp\.fc1", "intermediate.dense"),
            (r"mlp\.fc2", "output.dense"),
            (r"^norm\.", "layernorm."),
            (r"^patch_embed\.proj", "embeddings.patch_embeddings.projection"),
            ("^cls_token", "embeddings.cls_token"),
            ("^dist_token", "embeddings.distillation_token"),
            ("^pos_embed", "embeddings.position_embeddings"),
        ):
            name = re.sub(old, new, name)
        if key.startswith("head"):
            which = {
                "head": "cls_classifier" if distilled else "classifier",
                "head_dist": "distillation_classifier",
            }
            out[which[key.split(".")[0]] + "." + key.split(".")[1]] = array
        else:
            out[prefix + name] = array
    return out


def augreg(timm: Arrays, heads: int, prefix: str = "", order: tuple[int, int, int] = (1, 2, 3)) -> Arrays:
    """The arrays as the Flax ViT holds them; `order` numbers attention, second norm and MLP."""
    attention, norm2, mlp = order
    tables = {"cls_token": "cls", "pos_embed": "Transformer/posembed_input/pos_embedding"}
    width = timm["cls_token"].shape[-1]
    out = {tables[key]: timm[key] for key in tables}
    out["embedding/kernel"] = timm["patch_embed.proj.weight"].transpose(2, 3, 1, 0)
    out["embedding/bias"] = timm["patch_embed.proj.bias"]
    out["head/kernel"], out["head/bias"] = timm["head.weight"].T, timm["head.bias"]
    norms = [("norm", "Transformer/encoder_norm")]
    for i in range(sum(key.endswith("norm1.bias") for key in timm)):
        block, theirs = f"blocks.{i}", f"Transformer/encoderblock_{i}"
        norms += [
            (f"{block}.norm1", f"{theirs}/LayerNorm_0"),
            (f"{block}.norm2", f"{theirs}/LayerNorm_{norm2}"),
        ]
        for n in (0, 1):
            out[f"{theirs}/MlpBlock_{mlp}/Dense_{n}/kernel"] = timm[f"{block}.mlp.fc{n + 1}.weight"].T
            out[f"{theirs}/MlpBlock_{mlp}/Dense_{n}/bias"] = timm[f"{block}.mlp.fc{n + 1}.bias"]
        at = f"{theirs}/MultiHeadDotProductAttention_{attention}"
        kernels, biases = (np.split(timm[f"{block}.attn.qkv.{x}"], 3) for x in ("weight", "bias"))
        for part, kernel, bias in zip(("query", "key", "value"), kernels, biases, strict=True):
            out[f"{at}/{part}/kernel"] = kernel.T.reshape(width, heads, -1)
            out[f"{at}/{part}/bias"] = bias.reshape(heads, -1)
        out[f"{at}/out/kernel"] = timm[f"{block}.attn.proj.weight"].T.reshape(heads, -1, width)
        out[f"{at}/out/bias"] = timm[f"{block}.attn.proj.bias"]
    for ours, theirs in norms:
        out[f"{theirs}/scale"], out[f"{theirs}/bias"] = timm[f"{ours}.weight"], timm[f"{ours}.bias"]
    return {prefix + key: array for key, array in out.items()}


def logits(model: Network, x: np.ndarray) -> np.ndarray:
    """The float network's logits [B, C] of normalised images."""
    run = jax.jit(lambda params, x: forward(model.parts, float_reading(params), x))
    return np.asarray(run(model.params, x))
