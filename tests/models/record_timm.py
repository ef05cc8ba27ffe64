"""Records logits of small variants of timm's models, on the weights and images of `tests.models.recipe`.

    python -m tests.models.record_timm

It needs timm and PyTorch, which this project does not install. It writes `timm_variants.json` beside this file.
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
CLIP = {"pre_norm": True}
BEIT = {"use_abs_pos_emb": False, "use_rel_pos_bias": True, "init_values": 0.1}

# name -> (module of timm.models, class, settings); images have 8 x 8 pixels where nothing else is said
VARIANTS: dict[str, tuple[str, str, dict[str, Any]]] = {
    name: (module, model, TINY | settings)
    for name, (module, model, settings) in {
        "registers": ("vision_transformer", "VisionTransformer", {"reg_tokens": 2}),
        "dinov2 registers": (
            "vision_transformer",
            "VisionTransformer",
            PATCHES | {"reg_tokens": 4, "init_values": 1e-5},
        ),
        "deit3": ("deit", "VisionTransformer", PATCHES | {"init_values": 1e-6}),
        "qk-norm": ("vision_transformer", "VisionTransformer", {"qk_norm": True}),
        "mean": ("vision_transformer", "VisionTransformer", MEAN),
        "mean, registers": (
            "vision_transformer",
            "VisionTransformer",
            PATCHES | {"class_token": False, "global_pool": "avg", "reg_tokens": 3, "init_values": 1e-5},
        ),
        "mean, class token": ("vision_transformer", "VisionTransformer", {"global_pool": "avg"}),
        "clip": ("vision_transformer", "VisionTransformer", CLIP | {"act_layer": "quick_gelu"}),
        "siglip": ("vision_transformer", "VisionTransformer", {"class_token": False, "global_pool": "map"}),
        "siglip, registers": (
            "vision_transformer",
            "VisionTransformer",
            {"class_token": False, "global_pool": "map", "reg_tokens": 2},
        ),
        "siglip2": (
            "vision_transformer",
            "VisionTransformer",
            {"class_token": False, "global_pool": "map", "act_layer": "gelu_tanh"},
        ),
        "no bias": ("vision_transformer", "VisionTransformer", {"qkv_bias": False}),
        "patches that leave pixels": ("vision_transformer", "VisionTransformer", {"img_size": 11}),
        "beit": ("beit", "Beit", BEIT),
        "beit, class token": ("beit", "Beit", BEIT | {"global_pool": "token"}),
        "relative positions, all": (
            "beit",
            "Beit",
            BEIT | {"use_abs_pos_emb": True},
        ),
    }.items()
}


def logits(module: str, model: str, settings: dict[str, Any]) -> Any:
    torch, timm = import_module("torch"), import_module(f"timm.models.{module}")
    settings = {"img_size": 8, "num_classes": 5} | settings
    network = getattr(timm, model)(**settings).eval()
    state = network.state_dict()
    state = {key: torch.from_numpy(weight(key, tuple(value.shape))) for key, value in state.items()}
    network.load_state_dict(state)
    x = torch.from_numpy(images(settings["img_size"], 3).transpose(0, 3, 1, 2).copy())
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
