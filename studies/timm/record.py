"""Records what timm lists for the families that we have: keys, shapes, and what is unusual about a network.

    python -m studies.timm.record

It needs timm and PyTorch, which this project does not install, and no weights. It writes
`studies/timm/names.json`, from which `studies.timm.names` makes docs/models.md.
"""

import json
import re
from collections.abc import Iterator
from importlib import import_module
from typing import Any

from studies.timm.shapes import RECORDED, digest

FAMILIES = re.compile(
    r"(vit_|flexivit|deit|beit|eva_large_patch14_\d+$|swin_|levit|resnet\d|resnext|wide_resnet|regnetx|mobilenetv2)"
)
UNUSUAL = {  # class of a module of the network -> what that is
    "GluMlp": "SwiGLU",
    "SwiGLU": "SwiGLU",
    "HybridEmbed": "convolutional stem",
    "ParallelThingsBlock": "parallel blocks",
    "ParallelScalingBlock": "parallel blocks",
    "DiffParallelScalingBlock": "parallel blocks",
    "DiffAttention": "differential attention",
    "ResPostBlock": "norms after the branches",
    "ResPostRelPosBlock": "norms after the branches",
    "RelPosMlp": "relative positions by an MLP",
    "RmsNorm": "RMSNorm",
    "RotaryEmbeddingCat": "rotary positions",
    "RotaryEmbeddingDinoV3": "rotary positions",
    "RotaryEmbeddingMixed": "rotary positions",
    "ByobNet": "blocks of another kind",
    "GroupNormAct": "GroupNorm",
    "GroupNorm": "GroupNorm",
    "Levit": "one classifier",
    "Stem8": "stem of three convolutions",
}


def unusual(network: Any) -> str:
    """What sets a network apart, in words; the first of its unusual parts."""
    held = {type(module).__name__ for module in network.modules()}
    return next((words for name, words in UNUSUAL.items() if name in held), "") or next(
        _structure(network), ""
    )


def _structure(network: Any) -> Iterator[str]:
    names = [name for name, _ in network.named_modules()]
    held = {name: type(module).__name__ for name, module in network.named_modules()}
    if "conv1.1" in names:
        yield "stem of three convolutions"
    if held.get("norm") == "Identity" and held.get("fc_norm", "Identity") == "Identity":
        yield "no norm before the classifier"
    if held.get("blocks.0.attn.norm", "Identity") != "Identity":
        yield "norms inside attention and MLP"
    if "levit_conv" in network.default_cfg["architecture"]:
        yield "linear layers kept as convolutions"
    if "swin_s3" in network.default_cfg["architecture"]:
        yield "windows of another size in each stage"


def recorded(name: str) -> dict[str, str]:
    """What is kept of one name: the mark of its keys and shapes with a thousand classes."""
    timm = import_module("timm")
    try:
        network = timm.create_model(name, num_classes=1000)
    except (AssertionError, RuntimeError, ValueError):
        return {"digest": "", "unusual": "no classifier"}
    shapes = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    shapes = {key: shape for key, shape in shapes.items() if not key.endswith("num_batches_tracked")}
    return {"digest": digest(shapes), "unusual": unusual(network)}


def main() -> None:
    """Records."""
    timm, torch = import_module("timm"), import_module("torch")
    torch.set_default_device("meta")
    names = [name for name in timm.list_models() if FAMILIES.match(name)]
    lines = (f"{json.dumps(name)}: {json.dumps(recorded(name))}" for name in names)
    version = json.dumps(timm.__version__)
    RECORDED.write_text(f'{{\n"version": {version},\n' + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
