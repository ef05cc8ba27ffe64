"""Records logits of small variants of timm's models, on the weights and images of `tests.models.recipe`.

    python -m tests.models.record_timm

It needs timm and PyTorch, which this project does not install. It writes `timm_variants.json` beside it.
"""

import json
from importlib import import_module
from pathlib import Path
from typing import Any

from tests.models.recipe import images, weight

FILE = Path(__file__).with_name("timm_variants.json")
TINY = {"patch_size": 4, "embed_dim": 12, "depth": 2, "num_heads": 3, "mlp_ratio": 20 / 12}
MEAN = {"class_token": False, "global_pool": "avg", "fc_norm": False}
PATCHES = {"no_embed_class": True}
MAP = {"class_token": False, "global_pool": "map"}
BEIT = {"use_abs_pos_emb": False, "use_rel_pos_bias": True, "init_values": 0.1}

# name -> (module of timm.models, class, pixels, settings)
Variant = tuple[str, str, int, dict[str, Any]]
VITS: dict[str, dict[str, Any]] = {
    "registers": {"reg_tokens": 2},
    "dinov2 registers": PATCHES | {"reg_tokens": 4, "init_values": 1e-5},
    "deit3": PATCHES | {"init_values": 1e-6},
    "qk-norm": {"qk_norm": True},
    "mean": MEAN,
    "mean, registers": MEAN | PATCHES | {"fc_norm": None, "reg_tokens": 3, "init_values": 1e-5},
    "mean, class token": {"global_pool": "avg"},
    "clip": {"pre_norm": True, "act_layer": "quick_gelu"},
    "siglip": MAP,
    "siglip, registers": MAP | {"reg_tokens": 2},
    "siglip2": MAP | {"act_layer": "gelu_tanh"},
    "no bias": {"qkv_bias": False},
    "patches that leave pixels": {"img_size": 11},
}
BEITS: dict[str, dict[str, Any]] = {
    "beit": {},
    "beit, class token": {"global_pool": "token"},
    "relative positions, all": {"use_abs_pos_emb": True},
}
BOTTLENECKS = {"block": "Bottleneck", "layers": [1, 2, 1, 1]}
DEEP = {"stem_type": "deep", "stem_width": 32}
SWIN = {"patch_size": 2, "embed_dim": 8, "depths": (2, 2), "num_heads": (2, 4), "window_size": 12}
VARIANTS: dict[str, Variant] = {
    **{
        name: ("vision_transformer", "VisionTransformer", settings.get("img_size", 8), TINY | settings)
        for name, settings in VITS.items()
    },
    **{name: ("beit", "Beit", 8, TINY | BEIT | settings) for name, settings in BEITS.items()},
    "resnext": ("resnet", "ResNet", 33, BOTTLENECKS | {"cardinality": 8, "base_width": 8}),
    "resnet d": ("resnet", "ResNet", 35, BOTTLENECKS | DEEP | {"avg_down": True}),
    "resnet s": ("resnet", "ResNet", 32, BOTTLENECKS | DEEP | {"stem_width": 64}),
    "wide resnet": ("resnet", "ResNet", 40, BOTTLENECKS | {"base_width": 128}),
    "swin, window 12": ("swin_transformer", "SwinTransformer", 48, SWIN),
}


def logits(module: str, model: str, size: int, settings: dict[str, Any]) -> Any:
    torch, timm = import_module("torch"), import_module(f"timm.models.{module}")
    settings = {"num_classes": 5} | settings
    if "block" in settings:
        settings["block"] = getattr(timm, settings["block"])
    else:
        settings["img_size"] = size
    network = getattr(timm, model)(**settings).eval()
    state = network.state_dict()
    for key, value in state.items():
        if value.is_floating_point():
            state[key] = torch.from_numpy(weight(key, tuple(value.shape)))
    network.load_state_dict(state)
    x = torch.from_numpy(images(size, 3).transpose(0, 3, 1, 2).copy())
    with torch.no_grad():
        return network(x).double().numpy().round(6).tolist()


def main() -> None:
    found: dict[str, Any] = {
        "command": "python -m tests.models.record_timm",
        "timm": import_module("timm").__version__,
    }
    found |= {name: logits(*variant) for name, variant in VARIANTS.items()}
    lines = (f"{json.dumps(name)}: {json.dumps(value)}" for name, value in found.items())
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
