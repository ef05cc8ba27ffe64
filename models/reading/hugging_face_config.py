"""What transformers' config.json and preprocessor_config.json say of a checkpoint.

Sources of the keys: transformers' `configuration_vit.py` and `configuration_deit.py`, and its image
processors for ViT, DeiT, BiT, CLIP, SigLIP, LeViT and ConvNeXt.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evolq_jax.errors import UserError
from evolq_jax.json_text import shown
from evolq_jax.models.reading.facts import (
    ACTIVATIONS,
    Fact,
    Option,
    check_plain,
    facts_of,
    number,
    numbers,
    side,
    square,
    warn_of_unknown,
)
from evolq_jax.typing import Preprocessing

MODEL_TYPES = ("vit", "deit", "vit_msn")  # whose keys `models.convert_vit` knows
# What the library's configs have where a file says nothing.
DEFAULTS = {"hidden_act": "gelu", "layer_norm_eps": 1e-12}

MODEL_KEYS: dict[str, Option] = {
    "hidden_act": Option(("gelu_form", "activation"), ACTIVATIONS),
    "layer_norm_eps": Option(("eps",)),
    "num_attention_heads": Option(("num_heads",)),
    "hidden_size": Option(("width",)),
    "num_hidden_layers": Option(("depth",)),
    "intermediate_size": Option(("mlp_width",)),
    "patch_size": Option(("patch_size",), lambda value: square("patch_size", value)),
    "image_size": Option(("image_size",), lambda value: square("image_size", value)),
    "num_channels": Option(("channels",)),
    "qkv_bias": Option(("qkv_bias",), {True: "full", False: "none"}),
}
PLAIN_KEYS: dict[str, tuple[Any, ...]] = {
    "is_decoder": (),
    "add_cross_attention": (),
    "use_absolute_position_embeddings": (True,),
    "use_relative_position_bias": (),
    "use_shared_relative_position_bias": (),
    "use_mean_pooling": (),
    "pruned_heads": ({},),
    "quantization_config": (),
}
HARMLESS_KEYS = frozenset({
    "architectures", "model_type", "torch_dtype", "dtype", "transformers_version", "id2label", "label2id",
    "num_labels", "initializer_range", "hidden_dropout_prob", "attention_probs_dropout_prob",
    "encoder_stride", "pooler_act", "pooler_output_size", "problem_type", "finetuning_task",
    "_name_or_path", "name_or_path", "_commit_hash", "return_dict", "output_attentions",
    "output_hidden_states", "use_cache", "torchscript", "use_bfloat16", "tie_word_embeddings",
    "chunk_size_feed_forward", "gradient_checkpointing", "layerdrop", "drop_path_rate",
    "is_encoder_decoder", "attn_implementation", "_attn_implementation", "_attn_implementation_autoset",
    "use_mask_token", "license", "tags", "library_name",
})  # fmt: skip

FILTERS = {
    0: "nearest",
    1: "lanczos",
    2: "bilinear",
    3: "bicubic",
    4: "box",
    5: "hamming",
}  # Pillow's numbers
PIXEL_KEYS = frozenset({
    "size", "crop_size", "crop_pct", "resample", "do_resize", "do_center_crop", "do_rescale",
    "rescale_factor", "do_normalize", "image_mean", "image_std", "default_to_square",
})  # fmt: skip
PLAIN_PIXELS: dict[str, tuple[Any, ...]] = {
    "do_pad": (),
    "do_flip_channel_order": (),
    "do_thumbnail": (),
    "do_align_long_axis": (),
    "do_grayscale": (),
    "do_color_quantize": (),
    "rescale_offset": (),
    "offset": (),
    "size_divisor": (1,),
    "do_split_image": (),
}
HARMLESS_PIXELS = frozenset({
    "image_processor_type", "feature_extractor_type", "processor_class", "do_convert_rgb",
    "do_reduce_labels", "return_tensors", "data_format", "input_data_format", "device",
    "disable_grouping", "_valid_processor_keys", "pad_size", "transformers_version", "_processor_class",
    "auto_map",
})  # fmt: skip
# Processors that resize the shorter side to a `size` that is one number; others make a square of it.
BY_SHORTER = ("Bit", "CLIP", "ConvNext", "Levit", "MobileNetV2")
RESCALE = 1 / 255
LEVIT_RESIZE = 256 / 224  # its processor's own factor
CONVNEXT_CROP = 224 / 256  # its processor's default
CONVNEXT_SQUASHES = 384  # from this size on its processor does not crop


def is_transformers(settings: Mapping[str, Any]) -> bool:
    """Whether a config.json is transformers' for a network."""
    return bool({"model_type", "hidden_act", "layer_norm_eps", "num_attention_heads"} & settings.keys())


def read_model(path: Path, settings: dict[str, Any], config: Any) -> tuple[Fact, ...]:
    """The facts of transformers' config.json.

    Raises:
        UserError: a key has a value that is wrong, or that we cannot follow.
    """
    kind = settings.get("model_type")
    if kind is not None and kind not in MODEL_TYPES:
        raise UserError(f"model_type is {shown(kind)}, which is not read (known: {', '.join(MODEL_TYPES)})")
    check_plain(settings, PLAIN_KEYS)
    warn_of_unknown(path, settings, MODEL_KEYS.keys() | PLAIN_KEYS.keys() | HARMLESS_KEYS)
    return tuple(facts_of((DEFAULTS if kind in ("vit", "deit") else {}) | settings, MODEL_KEYS, config))


def read_processor(path: Path, settings: dict[str, Any], usual: Preprocessing) -> Preprocessing:
    """The preprocessing of preprocessor_config.json. What it leaves out is as in `usual`.

    Raises:
        UserError: a key has a value that is wrong, or that we cannot follow.
    """
    check_plain(settings, PLAIN_PIXELS)
    warn_of_unknown(path, settings, PIXEL_KEYS | PLAIN_PIXELS.keys() | HARMLESS_PIXELS)
    for key in PIXEL_KEYS:
        if key.startswith("do_") and not isinstance(settings.get(key, True), bool | None):
            raise UserError(f"{key} is {shown(settings[key])}, not true or false")
    mean, std = _normalisation(settings, usual)
    size, resize, mode = _sizes(settings, usual)
    resample, interpolation = settings.get("resample"), usual.interpolation
    if resample is not None:
        if isinstance(resample, bool | list | dict) or resample not in FILTERS:
            raise UserError(f"resample is {shown(resample)}, none of Pillow's filters 0 to {max(FILTERS)}")
        interpolation = FILTERS[resample]
    return Preprocessing(size, resize, interpolation, mean, std, mode)


def _normalisation(settings: Mapping[str, Any], usual: Preprocessing) -> tuple[tuple[float, ...], ...]:
    """Mean and deviation on the [0, 1] scale. The file's are on that of rescaled pixels."""
    mean, std = usual.mean, usual.std
    if settings.get("image_mean") is not None:
        mean = numbers("image_mean", settings["image_mean"])
    if settings.get("image_std") is not None:
        std = numbers("image_std", settings["image_std"])
    if len(mean) != len(usual.mean) or len(std) != len(usual.mean):
        raise UserError(f"image_mean and image_std must have {len(usual.mean)} numbers, one per channel")
    if settings.get("do_normalize") is False:
        mean, std = (0.0,) * len(mean), (1.0,) * len(std)
    factor = 1.0
    if settings.get("do_rescale", True) is not False:
        factor = number("rescale_factor", settings.get("rescale_factor", RESCALE))
    if factor <= 0:
        raise UserError(f"rescale_factor is {factor}, not a positive number")
    if abs(factor * 255 - 1) < 1e-6:  # the usual one, however many digits the file gives it
        return mean, std
    return tuple(value / (255 * factor) for value in mean), tuple(value / (255 * factor) for value in std)


def _sizes(settings: Mapping[str, Any], usual: Preprocessing) -> tuple[int, int | None, str]:
    """The side of the crop, the resize before it, and `center`, or `squash` where it ignores proportions."""
    kind = str(settings.get("image_processor_type") or settings.get("feature_extractor_type"))
    given, crop = settings.get("size"), None
    if settings.get("crop_size") is not None and settings.get("do_center_crop", True):
        crop = _square("crop_size", settings["crop_size"])
    if settings.get("do_resize") is False:
        return crop or usual.size, None, "center"
    if given is None:
        return (
            (usual.size, usual.resize, "center") if crop is None else (crop, usual.resize_for(crop), "center")
        )
    if isinstance(given, dict) and given.get("longest_edge") is not None:
        raise UserError(f"size is {shown(given)}: a longest_edge is not supported")
    if isinstance(given, dict) and given.get("shortest_edge") is not None:
        short, squash = side("size", given["shortest_edge"]), False
    else:
        short = _square("size", given)
        squash = isinstance(given, dict) or settings.get("default_to_square", not kind.startswith(BY_SHORTER))
    if squash:
        return crop or short, short, "squash"
    if kind.startswith("ConvNext") or settings.get("crop_pct") is not None:
        return _convnext(short, number("crop_pct", settings.get("crop_pct", CONVNEXT_CROP)))
    if crop is None:  # only the shorter side is told, so images would stay oblong
        raise UserError(f"size is {shown(given)} without a crop: only square images are supported")
    return crop, int(LEVIT_RESIZE * short) if kind.startswith("Levit") else short, "center"


def _convnext(short: int, crop: float) -> tuple[int, int, str]:
    if not 0.01 <= crop <= 1:
        raise UserError(f"crop_pct is {crop}, not a share of the image from 0.01 to 1")
    return (short, short, "squash") if short >= CONVNEXT_SQUASHES else (short, int(short / crop), "center")


def _square(key: str, value: Any) -> int:
    if not isinstance(value, dict):
        return square(key, value)
    if value.get("height") is None or value.get("height") != value.get("width"):
        raise UserError(f"{key} is {shown(value)}: only square images are supported")
    return side(key, value["height"])
