"""Networks of several stages by timm's names: Swin, LeViT and the CNNs."""

from dataclasses import replace

from evolq_jax.models import cifar_resnet, levit, mobilenetv2, regnet, resnet, swin
from evolq_jax.models.cifar_resnet import CifarResNetConfig
from evolq_jax.models.family import IMAGENET, Entry, Family, cropped
from evolq_jax.models.levit import LeViTConfig
from evolq_jax.models.mobilenetv2 import MobileNetV2Config
from evolq_jax.models.regnet import RegNetConfig
from evolq_jax.models.resnet import ResNetConfig
from evolq_jax.models.swin import SwinConfig

SWIN = Family(swin.make_swin, swin.init_params, swin.SWIN_LAYOUTS, swin.params_table)
LEVIT = Family(levit.make_levit, levit.init_params, (levit.TIMM,), levit.params_table)
RESNET = Family(resnet.make_resnet, resnet.init_params, (resnet.TIMM,), resnet.params_table)
CIFAR_RESNET = Family(
    cifar_resnet.make_cifar_resnet,
    cifar_resnet.init_params,
    (cifar_resnet.AKAMASTER,),
    cifar_resnet.params_table,
)
REGNET = Family(regnet.make_regnet, regnet.init_params, (regnet.TIMM,), regnet.params_table)
MOBILENETV2 = Family(
    mobilenetv2.make_mobilenetv2, mobilenetv2.init_params, (mobilenetv2.TIMM,), mobilenetv2.params_table
)

_CROP_875 = replace(IMAGENET, resize=256)
_TORCHVISION = replace(_CROP_875, interpolation="bilinear")

_SWIN_SIZES = {  # width, depths and heads of the four stages
    "tiny": (96, (2, 2, 6, 2), (3, 6, 12, 24)),
    "small": (96, (2, 2, 18, 2), (3, 6, 12, 24)),
    "base": (128, (2, 2, 18, 2), (4, 8, 16, 32)),
    "large": (192, (2, 2, 18, 2), (6, 12, 24, 48)),
}
_LEVITS = {
    "128s": LeViTConfig((128, 256, 384), (2, 3, 4), (4, 6, 8), 16),
    "128": LeViTConfig((128, 256, 384), (4, 4, 4), (4, 8, 12), 16),
    "192": LeViTConfig((192, 288, 384), (4, 4, 4), (3, 5, 6), 32),
    "256": LeViTConfig((256, 384, 512), (4, 4, 4), (4, 6, 8), 32),
    "384": LeViTConfig((384, 512, 768), (4, 4, 4), (6, 9, 12), 32),
}
_RESNETS = {
    "resnet18": ResNetConfig(),
    "resnet34": ResNetConfig((3, 4, 6, 3)),
    "resnet26": ResNetConfig((2, 2, 2, 2), bottleneck=True),
    "resnet50": ResNetConfig((3, 4, 6, 3), bottleneck=True),
    "resnet101": ResNetConfig((3, 4, 23, 3), bottleneck=True),
    "resnet152": ResNetConfig((3, 8, 36, 3), bottleneck=True),
    "resnet200": ResNetConfig((3, 24, 36, 3), bottleneck=True),
    "wide_resnet50_2": ResNetConfig((3, 4, 6, 3), bottleneck=True, group_width=128),
    "wide_resnet101_2": ResNetConfig((3, 4, 23, 3), bottleneck=True, group_width=128),
    "resnext50_32x4d": ResNetConfig((3, 4, 6, 3), bottleneck=True, groups=32, group_width=4),
    "resnext101_32x4d": ResNetConfig((3, 4, 23, 3), bottleneck=True, groups=32, group_width=4),
    "resnext101_32x8d": ResNetConfig((3, 4, 23, 3), bottleneck=True, groups=32, group_width=8),
    "resnext101_32x16d": ResNetConfig((3, 4, 23, 3), bottleneck=True, groups=32, group_width=16),
    "resnext101_32x32d": ResNetConfig((3, 4, 23, 3), bottleneck=True, groups=32, group_width=32),
    "resnext101_64x4d": ResNetConfig((3, 4, 23, 3), bottleneck=True, groups=64, group_width=4),
}
_DEEP_STEMS = {"c": (32, 32, 64), "d": (32, 32, 64), "s": (64, 64, 128), "t": (24, 32, 64)}
_DEEP_RESNETS = {  # name without the letter of its stem -> the plain network, and the letters
    "resnet10": (ResNetConfig((1, 1, 1, 1)), "t"),
    "resnet14": (ResNetConfig((1, 1, 1, 1), bottleneck=True), "t"),
    "resnet18": (_RESNETS["resnet18"], "d"),
    "resnet26": (_RESNETS["resnet26"], "dt"),
    "resnet34": (_RESNETS["resnet34"], "d"),
    "resnet50": (_RESNETS["resnet50"], "cdst"),
    "resnet101": (_RESNETS["resnet101"], "cds"),
    "resnet152": (_RESNETS["resnet152"], "cds"),
    "resnet200": (_RESNETS["resnet200"], "d"),
    "resnext50": (_RESNETS["resnext50_32x4d"], "d"),
}
_REGNETS = {
    "002": RegNetConfig((24, 56, 152, 368), (1, 1, 4, 7), 8),
    "004": RegNetConfig((32, 64, 160, 384), (1, 2, 7, 12), 16),
    "004_tv": RegNetConfig((32, 64, 160, 400), (1, 2, 7, 12), 16),
    "006": RegNetConfig((48, 96, 240, 528), (1, 3, 5, 7), 24),
    "008": RegNetConfig((64, 128, 288, 672), (1, 3, 7, 5), 16),
    "016": RegNetConfig((72, 168, 408, 912), (2, 4, 10, 2), 24),
    "032": RegNetConfig(),
    "040": RegNetConfig((80, 240, 560, 1360), (2, 5, 14, 2), 40),
    "064": RegNetConfig((168, 392, 784, 1624), (2, 4, 10, 1), 56),
    "080": RegNetConfig((80, 240, 720, 1920), (2, 5, 15, 1), 120),
    "120": RegNetConfig((224, 448, 896, 2240), (2, 5, 11, 1), 112),
    "160": RegNetConfig((256, 512, 896, 2048), (2, 6, 13, 1), 128),
    "320": RegNetConfig((336, 672, 1344, 2520), (2, 7, 13, 1), 168),
}
_DEEPER = (1, 3, 4, 5, 4, 4, 1), (1, 3, 5, 6, 5, 5, 1)
_MOBILENETS = {
    "035": MobileNetV2Config(widths=(8, 8, 16, 24, 32, 56, 112), stem_width=16),
    "050": MobileNetV2Config(widths=(8, 16, 16, 32, 48, 80, 160), stem_width=16),
    "075": MobileNetV2Config(widths=(16, 24, 24, 48, 72, 120, 240), stem_width=24),
    "100": MobileNetV2Config(),
    "110d": MobileNetV2Config(_DEEPER[0], (16, 24, 32, 72, 104, 176, 352)),
    "120d": MobileNetV2Config(_DEEPER[1], (24, 32, 40, 80, 112, 192, 384)),
    "140": MobileNetV2Config(widths=(24, 32, 48, 88, 136, 224, 448), stem_width=48, head_width=1792),
}


def _deep_resnet(name: str, plain: ResNetConfig, letter: str) -> Entry:
    """A ResNet with a stem of three convolutions. D and T have means in their shortcuts."""
    config = replace(plain, deep_stem=_DEEP_STEMS[letter], pooled_shortcut=letter in "dt")
    return Entry(name + letter + ("_32x4d" if plain.groups > 1 else ""), RESNET, config, _CROP_875)


def _swin(size: str, window: int, image: int, crop: float) -> Entry:
    width, depths, heads = _SWIN_SIZES[size]
    config = SwinConfig(first_width=width, depths=depths, num_heads=heads, window=window, image_size=image)
    name = f"swin_{size}_patch4_window{window}_{image}"
    return Entry(name, SWIN, config, cropped(IMAGENET, image, crop))


ENTRIES = (
    *(_swin(size, 7, 224, 0.9) for size in _SWIN_SIZES),
    *(_swin(size, 12, 384, 1.0) for size in ("base", "large")),
    *(Entry(f"levit_{name}", LEVIT, config, IMAGENET) for name, config in _LEVITS.items()),
    *(Entry(name, RESNET, config, _TORCHVISION) for name, config in _RESNETS.items()),
    *(
        _deep_resnet(name, plain, letter)
        for name, (plain, letters) in _DEEP_RESNETS.items()
        for letter in letters
    ),
    *(
        Entry(
            f"resnet{6 * blocks + 2}_cifar10",
            CIFAR_RESNET,
            CifarResNetConfig(blocks),
            replace(IMAGENET, size=32, resize=None),
        )
        for blocks in (3, 5, 7, 9)
    ),
    *(Entry(f"regnetx_{name}", REGNET, config, _CROP_875) for name, config in _REGNETS.items()),
    *(Entry(f"mobilenetv2_{name}", MOBILENETV2, config, _CROP_875) for name, config in _MOBILENETS.items()),
)
