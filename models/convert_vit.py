"""The keys of ViT and DeiT checkpoints for the parameters of `models.vit`: timm, Hugging Face, AugReg.

Sources of the names: timm's `vision_transformer.py` and `deit.py`; Hugging Face transformers'
`modeling_vit.py` and `modeling_deit.py`; the Flax checkpoints of google-research/vision_transformer
("How to train your ViT?", 2106.10270) and their variants in big_vision.
"""

import re
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from evolq_jax.models.convert import CONV, LINEAR, SAME, Form, Layout, Rule, Weights
from evolq_jax.models.table import torch_key
from evolq_jax.models.variant_keys import absent, variant_rules
from evolq_jax.models.vit import ViTConfig


class _Module(NamedTuple):
    """A weight and a bias: their names in the three layouts. Our leaf joins several names."""

    kind: str  # decides the form of the weight
    ours: str
    timm: str
    hugging_face: str | tuple[str, ...]
    augreg: str | tuple[str, ...]


_HF, _FLAX = "encoder.layer.{}.", "Transformer/encoderblock_{}/"
_HF_QKV = tuple(f"{_HF}attention.attention.{name}" for name in ("query", "key", "value"))
_FLAX_QKV = tuple(f"{_FLAX}MultiHeadDotProductAttention_1/{name}" for name in ("query", "key", "value"))
_FLAX_PROJ, _FLAX_FC = _FLAX + "MultiHeadDotProductAttention_1/out", _FLAX + "MlpBlock_3/Dense_"
_HF_DISTILLATION = "embeddings.distillation_token"
_HF_PATCHES = "embeddings.patch_embeddings.projection"

_MODULES = (
    _Module("conv", "patch_embed/proj", "patch_embed.proj", _HF_PATCHES, "embedding"),
    _Module("norm", "blocks/norm1", "blocks.{}.norm1", _HF + "layernorm_before", _FLAX + "LayerNorm_0"),
    _Module("qkv", "blocks/attn/qkv", "blocks.{}.attn.qkv", _HF_QKV, _FLAX_QKV),
    _Module("proj", "blocks/attn/proj", "blocks.{}.attn.proj", _HF + "attention.output.dense", _FLAX_PROJ),
    _Module("norm", "blocks/norm2", "blocks.{}.norm2", _HF + "layernorm_after", _FLAX + "LayerNorm_2"),
    _Module("linear", "blocks/mlp/fc1", "blocks.{}.mlp.fc1", _HF + "intermediate.dense", _FLAX_FC + "0"),
    _Module("linear", "blocks/mlp/fc2", "blocks.{}.mlp.fc2", _HF + "output.dense", _FLAX_FC + "1"),
    _Module("norm", "norm", "norm", "layernorm", "Transformer/encoder_norm"),
)
_HEADS = (_Module("linear", "head", "head", "classifier", "head"),)
_DISTILLED_HEADS = (
    _Module("linear", "head", "head", "cls_classifier", "head"),
    _Module("linear", "head_dist", "head_dist", "distillation_classifier", "head_dist"),
)
_TOKENS = {
    "cls_token": ("cls_token", "embeddings.cls_token", "cls"),
    "pos_embed": ("pos_embed", "embeddings.position_embeddings", "Transformer/posembed_input/pos_embedding"),
}
_DISTILLED_TOKENS = _TOKENS | {"dist_token": ("dist_token", "embeddings.distillation_token", "dist_token")}


def _rules(config: ViTConfig, column: int, forms: dict[str, tuple[str, Form, str, Form]]) -> dict[str, Rule]:
    """The table of one layout. `forms` gives, for a kind, suffix and form of the weight and of the bias."""
    tokens = _DISTILLED_TOKENS if config.distilled else _TOKENS
    rules = {leaf: Rule((names[column],)) for leaf, names in tokens.items()}
    for module in _MODULES + (_DISTILLED_HEADS if config.distilled else _HEADS):
        names = (module.timm, module.hugging_face, module.augreg)[column]
        names = (names,) if isinstance(names, str) else names
        weight_suffix, weight, bias_suffix, bias = forms[module.kind]
        rules[module.ours + "/weight"] = Rule(tuple(name + weight_suffix for name in names), weight)
        rules[module.ours + "/bias"] = Rule(tuple(name + bias_suffix for name in names), bias)
    return {leaf: rule for leaf, rule in rules.items() if leaf not in absent(config)} | variant_rules(config)


def _torch_rules(config: ViTConfig, column: int) -> dict[str, Rule]:
    kinds = {"conv": CONV, "norm": SAME, "qkv": LINEAR, "proj": LINEAR, "linear": LINEAR}
    return _rules(config, column, {kind: (".weight", form, ".bias", SAME) for kind, form in kinds.items()})


def _flax_rules(config: ViTConfig) -> dict[str, Rule]:
    """Kernels are HWIO and [in, out] like ours, but heads are an axis: qkv [D, H, d], proj [H, d, D]."""
    h = config.num_heads
    heads_last = Form(lambda a: a.reshape(a.shape[0], -1), lambda a: a.reshape(a.shape[0], h, -1))
    heads_first = Form(lambda a: a.reshape(-1, a.shape[-1]), lambda a: a.reshape(h, -1, a.shape[-1]))
    heads_only = Form(np.ravel, lambda a: a.reshape(h, -1))
    kernel = ("/kernel", SAME, "/bias", SAME)
    forms = {
        "conv": kernel,
        "norm": ("/scale", SAME, "/bias", SAME),
        "qkv": ("/kernel", heads_last, "/bias", heads_only),
        "proj": ("/kernel", heads_first, "/bias", SAME),
        "linear": kernel,
    }
    return _rules(config, 2, forms)


# transformers 5 -> 4, whose names the table above has
_HF_VARIANTS = (
    (r"^(vit\.|deit\.)", ""),
    (r"^layers\.", "encoder.layer."),
    (r"\.attention\.q_proj\.", ".attention.attention.query."),
    (r"\.attention\.k_proj\.", ".attention.attention.key."),
    (r"\.attention\.v_proj\.", ".attention.attention.value."),
    (r"\.attention\.o_proj\.", ".attention.output.dense."),
    (r"\.mlp\.fc1\.", ".intermediate.dense."),
    (r"\.mlp\.fc2\.", ".output.dense."),
)


def _hugging_face_key(key: str) -> str:
    return _renamed(key, _HF_VARIANTS)


# Modules are numbered by their order of creation, which differs between releases of that code.
_FLAX_VARIANTS = (
    (r"/MultiHeadDotProductAttention_\d/", "/MultiHeadDotProductAttention_1/"),
    (r"/MlpBlock_\d/", "/MlpBlock_3/"),
    (r"/LayerNorm_[1-9]/", "/LayerNorm_2/"),
    (r"^pos_embedding$", "Transformer/posembed_input/pos_embedding"),
)


def _flax_key(key: str) -> str:
    return _renamed(key, _FLAX_VARIANTS)


def _renamed(key: str, variants: tuple[tuple[str, str], ...]) -> str:
    for pattern, replacement in variants:
        key = re.sub(pattern, replacement, key)
    return key


TIMM = Layout(
    "timm",
    "blocks.0.attn.",
    lambda config: _torch_rules(config, 0),
    torch_key,
    ignored=("buffer:", "mask_token"),  # masks are of pre-training
)


def _hugging_face_rules(config: ViTConfig) -> dict[str, Rule]:
    registers = {"reg_token": Rule((_HF_DISTILLATION,))} if config.registers else {}
    return _torch_rules(config, 1) | registers


def _with_one_head(config: ViTConfig, weights: Weights) -> ViTConfig:
    """The config of transformers' DeiT with one classifier: nothing reads its distillation token."""
    one_head = _HF_DISTILLATION in weights and "cls_classifier.weight" not in weights
    return replace(config, distilled=False, registers=1) if one_head else config


HUGGING_FACE = Layout(
    "Hugging Face transformers",
    "encoder.layer.0.",
    _hugging_face_rules,
    _hugging_face_key,
    ignored=("pooler.", "n_averaged"),  # the classifier reads the class token, not the pooler's output
    adapt=_with_one_head,
)
AUGREG = Layout("AugReg (Flax)", "Transformer/encoderblock_0/", _flax_rules, _flax_key)

VIT_LAYOUTS = (TIMM, HUGGING_FACE, AUGREG)  # the first is the one we write
