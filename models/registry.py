"""The models by name (timm's, and a few small ones of our own), and how their checkpoints want images."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from evolq_jax.errors import UserError, suggestion
from evolq_jax.models import cifar_resnet, levit, mobilenetv2, regnet, resnet, swin
from evolq_jax.models.cifar_resnet import CifarResNetConfig
from evolq_jax.models.convert import Layout
from evolq_jax.models.convert_vit import VIT_LAYOUTS
from evolq_jax.models.levit import LeViTConfig
from evolq_jax.models.mobilenetv2 import MobileNetV2Config
from evolq_jax.models.regnet import RegNetConfig
from evolq_jax.models.resnet import ResNetConfig
from evolq_jax.models.swin import SwinConfig
from evolq_jax.models.vit import ViTConfig, make_vit
from evolq_jax.models.vit_params import init_params
from evolq_jax.network.parts import ModelParts
from evolq_jax.trees import flatten
from evolq_jax.typing import Array, Params, Preprocessing

WEIGHTS = Path(__file__).parent / "weights"  # that evolq_jax brings along


@dataclass(frozen=True)
class Family:
    """What all sizes of one architecture share.

    - `make(config)` gives the network.
    - `init(key, config)` gives random parameters. Checkpoints are compared with their shapes.
    - `layouts` are the kinds of files that can be read. The first one is what we write.
    """

    make: Callable[[Any], ModelParts]
    init: Callable[[Array, Any], Params]
    layouts: tuple[Layout, ...]


@dataclass(frozen=True)
class Entry:
    """A model of the registry: a frozen, hashable `config` of its family, and the usual preprocessing."""

    name: str
    family: Family
    config: Any
    preprocessing: Preprocessing

    def make(self) -> ModelParts:
        """The network with the sizes of this entry."""
        return self.family.make(self.config)


class ModelRow(NamedTuple):
    """One line of the list of models. A size is None if the family does not have it, or has it per stage."""

    name: str
    num_params: int
    image_size: int
    patch_size: int | None
    width: int | None
    depth: int | None
    num_heads: int | None
    preprocessing: Preprocessing
    weights_included: bool  # evolq_jax brings weights for it


VIT = Family(make_vit, init_params, VIT_LAYOUTS)
SWIN = Family(swin.make_swin, swin.init_params, swin.SWIN_LAYOUTS)
LEVIT = Family(levit.make_levit, levit.init_params, (levit.TIMM,))
RESNET = Family(resnet.make_resnet, resnet.init_params, (resnet.TIMM,))
CIFAR_RESNET = Family(cifar_resnet.make_cifar_resnet, cifar_resnet.init_params, (cifar_resnet.AKAMASTER,))
REGNET = Family(regnet.make_regnet, regnet.init_params, (regnet.TIMM,))
MOBILENETV2 = Family(mobilenetv2.make_mobilenetv2, mobilenetv2.init_params, (mobilenetv2.TIMM,))

_SIZES = {"tiny": (192, 12, 3), "small": (384, 12, 6), "base": (768, 12, 12), "large": (1024, 24, 16)}
_IMAGENET = Preprocessing(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))  # bicubic, crop 0.9
_CROP_875 = replace(_IMAGENET, resize=256)
_TORCHVISION = replace(_CROP_875, interpolation="bilinear")


def _config(size: str, patch: int, image: int, distilled: bool = False) -> ViTConfig:
    width, depth, heads = _SIZES[size]
    return ViTConfig(
        image_size=image,
        patch_size=patch,
        channels=3,
        width=width,
        depth=depth,
        num_heads=heads,
        mlp_width=4 * width,
        distilled=distilled,
    )


def _vit(size: str, patch: int, image: int) -> Entry:
    """A ViT with the AugReg checkpoints' data configuration (timm: crop 0.9 at 224, 1.0 at 384).

    They were trained in Flax, whose default GELU is the tanh form. timm evaluates them with erf. So do we,
    even for the original `.npz` files.
    """
    preprocessing = Preprocessing(image, {224: 248, 384: 384}[image])
    return Entry(f"vit_{size}_patch{patch}_{image}", VIT, _config(size, patch, image), preprocessing)


def _deit(size: str, image: int, distilled: bool = False) -> Entry:
    """A DeiT as its authors evaluate it: resized to 256/224 of the crop, bicubic.

    timm's copies of these checkpoints say crop 0.9 (resize 248) at 224, and 1.0 at 384. A config.json beside
    the weights has priority.
    """
    name = f"deit_{size}{'_distilled' if distilled else ''}_patch16_{image}"
    preprocessing = replace(_IMAGENET, size=image, resize=image * 256 // 224)
    return Entry(name, VIT, _config(size, 16, image, distilled), preprocessing)


_SWIN_SIZES = {  # width, depths and heads of the four stages
    "tiny": (96, (2, 2, 6, 2), (3, 6, 12, 24)),
    "small": (96, (2, 2, 18, 2), (3, 6, 12, 24)),
    "base": (128, (2, 2, 18, 2), (4, 8, 16, 32)),
}
_LEVIT_CONFIGS = {
    "128s": LeViTConfig((128, 256, 384), (2, 3, 4), (4, 6, 8), 16),
    "128": LeViTConfig((128, 256, 384), (4, 4, 4), (4, 8, 12), 16),
    "192": LeViTConfig((192, 288, 384), (4, 4, 4), (3, 5, 6), 32),
    "256": LeViTConfig((256, 384, 512), (4, 4, 4), (4, 6, 8), 32),
    "384": LeViTConfig((384, 512, 768), (4, 4, 4), (6, 9, 12), 32),
}


def _swin(size: str) -> Entry:
    width, depths, heads = _SWIN_SIZES[size]
    config = SwinConfig(first_width=width, depths=depths, num_heads=heads)
    return Entry(f"swin_{size}_patch4_window7_224", SWIN, config, _IMAGENET)


_ENTRIES = (
    *(_vit(size, 16, 224) for size in _SIZES),
    *(_vit(size, 16, 384) for size in _SIZES),
    *(_vit(size, 32, image) for image in (224, 384) for size in ("small", "base", "large")),
    _vit("base", 8, 224),
    *(_deit(size, 224, distilled) for distilled in (False, True) for size in ("tiny", "small", "base")),
    *(_deit("base", 384, distilled) for distilled in (False, True)),
    *(_swin(size) for size in _SWIN_SIZES),
    *(Entry(f"levit_{name}", LEVIT, config, _IMAGENET) for name, config in _LEVIT_CONFIGS.items()),
    Entry("resnet18", RESNET, ResNetConfig(), _TORCHVISION),
    Entry("resnet34", RESNET, ResNetConfig((3, 4, 6, 3)), _TORCHVISION),
    Entry("resnet50", RESNET, ResNetConfig((3, 4, 6, 3), bottleneck=True), _TORCHVISION),
    *(
        Entry(
            f"resnet{6 * blocks + 2}_cifar10",
            CIFAR_RESNET,
            CifarResNetConfig(blocks),
            replace(_IMAGENET, size=32, resize=None),
        )
        for blocks in (3, 5, 7, 9)
    ),
    Entry("regnetx_032", REGNET, RegNetConfig(), _CROP_875),
    Entry("mobilenetv2_100", MOBILENETV2, MobileNetV2Config(), _CROP_875),
    Entry(
        "vit_d128_l4_cifar10",
        VIT,
        ViTConfig(
            image_size=32, patch_size=4, width=128, depth=4, num_heads=4, mlp_width=256, num_classes=10
        ),
        Preprocessing(size=32, resize=None, mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616)),
    ),
    Entry(
        "vit_digits",
        VIT,
        ViTConfig(
            image_size=8,
            patch_size=2,
            channels=1,
            width=64,
            depth=4,
            num_heads=4,
            mlp_width=128,
            num_classes=10,
        ),
        Preprocessing(size=8, resize=None, mean=(0.5,), std=(0.5,)),
    ),
)

REGISTRY = {entry.name: entry for entry in _ENTRIES}


def get_entry(name: str) -> Entry:
    """The entry of a name, with or without timm's `.tag` of a checkpoint.

    Raises:
        UserError: the name is unknown.
    """
    base = name.split(".")[0]
    if base not in REGISTRY:
        raise UserError(f"unknown model '{name}' (`evolq models` lists them){suggestion(base, REGISTRY)}")
    return REGISTRY[base]


@cache
def param_shapes(family: Family, config: Any) -> dict[str, tuple[int, ...]]:
    """Leaf name -> shape of the parameters of a model; nothing is computed."""
    tree = jax.eval_shape(lambda key: family.init(key, config), jax.random.key(0))
    return {name: leaf.shape for name, leaf in flatten(tree).items()}


def list_models() -> list[ModelRow]:
    """Every model of the registry, with its size and the preprocessing of its usual checkpoint."""
    rows: list[ModelRow] = []
    for entry in REGISTRY.values():
        shapes = param_shapes(entry.family, entry.config)
        names = ("patch_size", "width", "depth", "num_heads")
        sizes = (getattr(entry.config, name, None) for name in names)
        patch, width, depth, heads = (size if isinstance(size, int) else None for size in sizes)
        trained = [shape for name, shape in shapes.items() if "running_" not in name]
        num_params = sum(int(np.prod(shape)) for shape in trained)
        size = entry.preprocessing.size
        included = (WEIGHTS / f"{entry.name}.safetensors").is_file()
        rows.append(
            ModelRow(
                name=entry.name,
                num_params=num_params,
                image_size=size,
                patch_size=patch,
                width=width,
                depth=depth,
                num_heads=heads,
                preprocessing=entry.preprocessing,
                weights_included=included,
            )
        )
    return rows
