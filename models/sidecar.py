"""The JSON files beside a checkpoint: data configuration, GELU form and eps of timm and Hugging Face.

These are properties of the checkpoint, not of the architecture. So they have priority over the registry.
"""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

from evolq_jax.errors import UserError
from evolq_jax.typing import Preprocessing

# transformers' `hidden_act` and timm's `act_layer` -> our form
GELU_FORMS = {
    "gelu": "erf",
    "gelu_new": "tanh",
    "gelu_pytorch_tanh": "tanh",
    "gelu_fast": "tanh",
    "gelu_tanh": "tanh",
}
PIL_FILTERS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}  # numbers in HF's `resample`


def apply_sidecars(
    folder: Path, model: str, config: Any, preprocessing: Preprocessing
) -> tuple[Any, Preprocessing]:
    """Applies config.json and preprocessor_config.json in `folder` to `config` and `preprocessing`.

    Reads timm's `pretrained_cfg` and transformers' `hidden_act`, `layer_norm_eps`, `image_mean` and so on.
    Without such files both come back unchanged. One difference: transformers squashes images to a square; we
    resize the shorter side and crop. Images that are not square come out differently.

    Raises:
        UserError: a file cannot be parsed, is for another model than `model`, or needs what we lack.
    """
    path, processor = folder / "config.json", folder / "preprocessor_config.json"
    settings = _load(path)
    try:
        if "pretrained_cfg" in settings:
            _check_architecture(settings.get("architecture", model), model)
            act_layer = settings.get("model_args", {}).get("act_layer")
            config = _with_numerics(config, act_layer, None)
            preprocessing = _from_timm(settings["pretrained_cfg"], preprocessing)
        elif "hidden_act" in settings or "layer_norm_eps" in settings:
            _check_heads(settings, config)
            config = _with_numerics(config, settings.get("hidden_act"), settings.get("layer_norm_eps"))
            path = processor
            preprocessing = _from_transformers(_load(processor), preprocessing)
        _check_images(config, preprocessing)
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise UserError(
            f"{path}: not understood ({error}): correct it, or move it away to use defaults"
        ) from None
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    return config, preprocessing


def _load(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not readable as JSON ({error})") from None
    if not isinstance(settings, dict):
        raise UserError(f"{path}: not a JSON object of settings")
    return settings


def _from_timm(cfg: dict[str, Any], usual: Preprocessing) -> Preprocessing:
    size = cfg["input_size"][1] if "input_size" in cfg else usual.size
    # as timm's transforms_factory rounds it
    resize = math.floor(size / cfg["crop_pct"]) if cfg.get("crop_pct") else usual.resize
    interpolation = cfg.get("interpolation", usual.interpolation)
    mean, std = cfg.get("mean", usual.mean), cfg.get("std", usual.std)
    return Preprocessing(size, resize, interpolation, _floats(mean), _floats(std))


def _from_transformers(cfg: dict[str, Any], usual: Preprocessing) -> Preprocessing:
    if not cfg:
        return usual
    resize = _side(cfg["size"]) if "size" in cfg else usual.resize
    size = (
        _side(cfg["crop_size"]) if cfg.get("do_center_crop") and "crop_size" in cfg else resize or usual.size
    )
    if not cfg.get("do_resize", True):
        resize = None
    interpolation = PIL_FILTERS[cfg["resample"]] if "resample" in cfg else usual.interpolation
    mean, std = cfg.get("image_mean", usual.mean), cfg.get("image_std", usual.std)
    if not cfg.get("do_normalize", True):
        mean, std = [0.0] * len(usual.mean), [1.0] * len(usual.std)
    return Preprocessing(size, resize, interpolation, _floats(mean), _floats(std))


def _floats(values: Any) -> tuple[float, ...]:
    return tuple(float(value) for value in values)


def _side(size: Any) -> int:
    """The size as transformers writes it: a number, {"shortest_edge": n}, or {"height": n, "width": n}."""
    return int(size.get("shortest_edge") or size["height"]) if isinstance(size, dict) else int(size)


def _with_numerics(config: Any, activation: str | None, eps: float | None) -> Any:
    changes: dict[str, Any] = {}
    if activation is not None:
        if activation not in GELU_FORMS:
            raise UserError(f"activation '{activation}' is not supported (known: {', '.join(GELU_FORMS)})")
        changes["gelu_form"] = GELU_FORMS[activation]
    if eps is not None:
        changes["eps"] = float(eps)
    return dataclasses.replace(config, **changes)


def _check_architecture(architecture: str, model: str) -> None:
    if architecture.split(".")[0] != model:
        raise UserError(
            f"the weights beside it are '{architecture}', not '{model}': give that name, or move the "
            "file away if it belongs to other weights"
        )


def _check_heads(settings: dict[str, Any], config: Any) -> None:
    heads = settings.get("num_attention_heads", getattr(config, "num_heads", None))
    if heads != getattr(config, "num_heads", heads):
        raise UserError(f"num_attention_heads is {heads}, the model named has {config.num_heads}")


def _check_images(config: Any, preprocessing: Preprocessing) -> None:
    if preprocessing.size != config.image_size:
        raise UserError(
            f"images are cropped to {preprocessing.size} pixels, but the model takes {config.image_size}"
        )
    if not len(preprocessing.mean) == len(preprocessing.std) == config.channels:
        raise UserError(f"mean and std must have {config.channels} numbers, one per channel")
