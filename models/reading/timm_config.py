"""What timm's config.json says of a checkpoint, in its form of today and in the older flat one.

Sources of the keys: timm's `models/_pretrained.py`, `models/_hub.py`, `data/config.py` and
`data/transforms_factory.py`. As timm's own validation does, `test_input_size` and `test_crop_pct` come first.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from evolq_jax.errors import UserError
from evolq_jax.json_text import shown
from evolq_jax.models.reading.facts import (
    ACTIVATIONS,
    Fact,
    Facts,
    Option,
    check_plain,
    facts_of,
    number,
    numbers,
    side,
    square,
    warn_of_unknown,
)
from evolq_jax.typing import Interpolation, Preprocessing

POOLS = {"avg": "mean", "fast": "mean", "fastavg": "mean", "token": "token", "map": "attention"}

# Arguments of a network. One line for each; `models.reading.facts.Option` says what it means.
MODEL_ARGS: dict[str, Option] = {
    "patch_size": Option(("patch_size",)),
    "in_chans": Option(("channels",)),
    "embed_dim": Option(("width", "first_width", "widths")),
    "depth": Option(("depth",)),
    "depths": Option(("depths",)),
    "layers": Option(("depths",)),
    "num_heads": Option(("num_heads",)),
    "window_size": Option(("window",)),
    "act_layer": Option(("gelu_form", "activation"), ACTIVATIONS),
    "global_pool": Option(("pool",), POOLS),
    "class_token": Option(("class_token",)),
    "reg_tokens": Option(("registers",)),
    "no_embed_class": Option(("positions",), {True: "patches", False: "all"}),
    "pos_embed": Option(("positions",), {"learn": "all", "none": "none", "": "none"}),
    "init_values": Option(("layer_scale",), lambda value: bool(number("init_values", value))),
    "qkv_bias": Option(("qkv_bias",), {True: "full", False: "none"}),
    "qk_norm": Option(("qk_norm",)),
    "pre_norm": Option(("pre_norm",)),
    "norm_eps": Option(("eps",)),
}

# Arguments that make another network, with the values that do not.
PLAIN_ARGS: dict[str, tuple[Any, ...]] = {
    "norm_layer": (),
    "embed_layer": (),
    "mlp_layer": (),
    "block_fn": (),
    "attn_layer": (),
    "proj_bias": (True,),
    "final_norm": (True,),
    "embed_norm_layer": (),
    "pool_include_prefix": (),
    "scale_attn_norm": (),
    "scale_mlp_norm": (),
    "use_abs_pos_emb": (True,),
    "use_rel_pos_bias": (),
    "use_shared_rel_pos_bias": (),
    "swiglu_mlp": (),
    "head_hidden_size": (),
    "ape": (),
    "patch_norm": (True,),
    "strict_img_size": (True,),
    "always_partition": (),
    "output_stride": (32,),
    "stem_type": ("",),
    "stem_width": (64,),
    "cardinality": (1,),
    "base_width": (64,),
    "avg_down": (),
    "aa_layer": (),
    "replace_stem_pool": (),
    "block_args": (),
    "down_kernel_size": (1,),
    "downsample": ("conv",),
    "use_conv": (),
    "pad_type": ("",),
    "round_chs_fn": (),
    "use_naflex": (),
}

# Read elsewhere, or of no consequence for the function and the pixels.
HARMLESS_ARGS = frozenset({
    "img_size", "mlp_ratio", "fc_norm", "num_classes", "drop_rate", "drop_path_rate", "drop_block_rate",
    "attn_drop_rate", "proj_drop_rate", "pos_drop_rate", "patch_drop_rate", "weight_init", "fix_init",
    "zero_init_last", "scriptable", "exportable", "dynamic_img_size", "dynamic_img_pad", "features_only",
    "out_indices", "pretrained", "checkpoint_path", "act_dtype", "distilled",
})  # fmt: skip

PIXEL_KEYS = frozenset({
    "mean", "std", "crop_pct", "test_crop_pct", "crop_mode", "input_size", "test_input_size",
    "interpolation",
})  # fmt: skip
HARMLESS_CFG = PIXEL_KEYS | frozenset({
    "url", "file", "state_dict", "hf_hub_id", "hf_hub_filename", "source", "architecture", "tag",
    "custom_load", "num_classes", "label_offset", "label_names", "label_descriptions", "labels",
    "pool_size", "test_pool_size", "min_input_size", "fixed_input_size", "first_conv", "classifier",
    "license", "description", "origin_url", "paper_name", "paper_ids", "notes", "num_features",
    "global_pool", "model_args", "has_weights", "test_interpolation",
})  # fmt: skip
HARMLESS_TOP = frozenset({
    "architecture", "num_classes", "num_features", "global_pool", "model_args", "pretrained_cfg",
    "label_names", "label_descriptions", "labels", "model_type", "architectures", "id2label", "label2id",
    "num_labels", "dtype", "torch_dtype", "transformers_version", "do_pooling", "initializer_range",
    "problem_type", "library_name", "tags", "license",
})  # fmt: skip


def is_timm(settings: Mapping[str, Any]) -> bool:
    """Whether a config.json is timm's: it has a `pretrained_cfg`, or is the older form of one."""
    flat = "model_type" not in settings and bool(PIXEL_KEYS & settings.keys())
    return "pretrained_cfg" in settings or flat or "architecture" in settings


def read_timm(path: Path, settings: dict[str, Any], config: Any, usual: Preprocessing) -> Facts:
    """The facts of timm's config.json.

    Args:
        path: of the file.
        settings: its content.
        config: of the model, whose fields say what can be set.
        usual: the registry's preprocessing, for keys that the file leaves out.

    Raises:
        UserError: a key has a value that is wrong, or that we cannot follow.
    """
    cfg = settings.get("pretrained_cfg", settings)
    args = settings.get("model_args") or {}
    for key, value in (("pretrained_cfg", cfg), ("model_args", args)):
        if not isinstance(value, dict):
            raise UserError(f"{key} is {shown(value)}, not an object of settings")
    architecture = settings.get("architecture", cfg.get("architecture"))
    if architecture is not None and not isinstance(architecture, str):
        raise UserError(f"architecture is {shown(architecture)}, not a name")
    check_plain(args, PLAIN_ARGS)
    check_plain(cfg, {"label_offset": (0,), "crop_mode": ("center", "squash")})
    if cfg is not settings:
        warn_of_unknown(path, settings, HARMLESS_TOP)
    warn_of_unknown(path, cfg, HARMLESS_CFG)
    warn_of_unknown(path, args, MODEL_ARGS.keys() | PLAIN_ARGS.keys() | HARMLESS_ARGS)
    # timm records the pool at the top; the argument, where it is given, made the network
    pool = {key: settings[key] for key in ("global_pool",) if key not in args and key in settings}
    facts = facts_of(pool, MODEL_ARGS, config) + facts_of(args, MODEL_ARGS, config)
    facts += _derived_facts(cfg, args, config, facts)
    return Facts(path, architecture, tuple(facts), tuple(_preprocessing(cfg, args, usual)))


def _derived_facts(
    cfg: Mapping[str, Any], args: Mapping[str, Any], config: Any, facts: list[Fact]
) -> list[Fact]:
    """Facts that follow from several keys: channels, the width of the MLP, and where the final norm is."""
    found: list[Fact] = []
    stated = {fact.field: fact.ours for fact in facts}
    if (ratio := args.get("mlp_ratio")) is not None:
        if hasattr(config, "mlp_width"):
            width = int(stated.get("width", config.width) * number("mlp_ratio", ratio))
            found.append(Fact("mlp_ratio", ratio, "mlp_width", width))
        else:
            check_plain(args, {"mlp_ratio": (getattr(config, "mlp_ratio", 4),)})
    if args.get("in_chans") is None and (shape := cfg.get("input_size")) is not None:
        found.append(Fact("input_size", shape, "channels", _shape("input_size", shape)[0]))
    norm, pool = args.get("fc_norm"), stated.get("pool", getattr(config, "pool", "token"))
    if norm is not None:
        found.append(Fact("fc_norm", norm, "norm_pooled", norm))
    elif "pool" in stated and pool != getattr(config, "pool", "token") and hasattr(config, "norm_pooled"):
        found.append(Fact("global_pool", pool, "norm_pooled", pool == "mean"))  # timm's choice
    return found


def _preprocessing(
    cfg: Mapping[str, Any], args: Mapping[str, Any], usual: Preprocessing
) -> list[Preprocessing]:
    """How images are prepared: at the size of tests, if there is one, then at that of training."""
    if not (PIXEL_KEYS & {key for key, value in cfg.items() if value is not None} or "img_size" in args):
        return []
    size, channels = usual.size, len(usual.mean)
    if (shape := cfg.get("input_size")) is not None:
        channels, size = _shape("input_size", shape)
    if (given := args.get("in_chans")) is not None:
        channels = side("in_chans", given)
    if (shape := args.get("img_size")) is not None:
        size = square("img_size", shape)
    mean, std = (
        numbers(key, cfg[key]) if cfg.get(key) is not None else value
        for key, value in (("mean", usual.mean), ("std", usual.std))
    )
    if len(mean) != channels or len(std) != channels:
        raise UserError(f"mean and std must have {channels} numbers, one per channel")
    crop = _crop("crop_pct", cfg)
    tested = _crop("test_crop_pct", cfg) or crop
    wanted = [(size, tested)]
    if (shape := cfg.get("test_input_size")) is not None:
        wanted = [(_shape("test_input_size", shape)[1], tested), (size, crop)]
    interpolation = cfg.get("interpolation") or usual.interpolation
    if interpolation not in get_args(Interpolation):
        known = ", ".join(get_args(Interpolation))
        raise UserError(f"interpolation is {shown(interpolation)}, which is not supported (known: {known})")
    mode = cfg.get("crop_mode") or "center"
    common = replace(usual, interpolation=interpolation, mean=mean, std=std, crop_mode=mode)
    return [
        # as timm's transforms_factory rounds it
        replace(common, size=side, resize=math.floor(side / pct) if pct else usual.resize_for(side))
        for side, pct in wanted
    ]


def _shape(key: str, value: Any) -> tuple[int, int]:
    """The channels and the side of an image."""
    if not isinstance(value, list) or len(value) != 3:
        raise UserError(f"{key} is {shown(value)}, not [channels, height, width]")
    return side(key, value[0]), square(key, value[1:])


def _crop(key: str, cfg: Mapping[str, Any]) -> float | None:
    value = cfg.get(key)
    if value is None:
        return None
    if not 0.01 <= number(key, value) <= 1:
        raise UserError(f"{key} is {shown(value)}, not a share of the image from 0.01 to 1")
    return float(value)
