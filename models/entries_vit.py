"""ViTs by timm's names. A name gives the sizes of the network; what varies beside them is an option."""

import re
from dataclasses import replace
from typing import Any

from evolq_jax.models.convert_vit import VIT_LAYOUTS
from evolq_jax.models.family import CLIP, HALF, IMAGENET, PIXELS, Entry, Family, cropped
from evolq_jax.models.vit import ViTConfig, make_vit
from evolq_jax.models.vit_params import init_params
from evolq_jax.typing import Preprocessing

VIT = Family(make_vit, init_params, VIT_LAYOUTS)

SIZES = {  # width, depth, heads, width of the MLP
    "tiny": (192, 12, 3, 768),
    "wee": (256, 14, 4, 1280),
    "xsmall": (256, 10, 4, 1024),
    "little": (320, 14, 5, 1792),
    "small": (384, 12, 6, 1536),
    "medium": (512, 12, 8, 2048),
    "mediumd": (512, 20, 8, 2048),
    "betwixt": (640, 12, 10, 2560),
    "base": (768, 12, 12, 3072),
    "base_plus": (896, 12, 14, 3584),
    "so150m": (896, 18, 14, 2304),
    "so150m2": (832, 21, 13, 2176),
    "large": (1024, 24, 16, 4096),
    "so400m": (1152, 27, 16, 4304),
    "huge": (1280, 32, 16, 5120),
    "giant": (1408, 40, 16, 6144),
    "giantopt": (1536, 40, 16, 6144),
    "gigantic": (1664, 48, 16, 8192),
}
_NAME = re.compile(r"[a-z0-9]+_(?P<size>[a-z0-9]+)(_distilled)?(_patch(?P<patch>\d+))?(?P<rest>.*)")


def vits(names: str, usual: Preprocessing, crop: float, **options: Any) -> list[Entry]:
    """The entries of names that are separated by blanks.

    Args:
      names: each says the size, and patch and pixels, if these are not among the options.
      usual: mean, std and interpolation of their checkpoints.
      crop: what the centre crop keeps of the shorter side.
      **options: fields of `ViTConfig`.
    """
    return [_entry(name, usual, crop, options) for name in names.split()]


def _entry(name: str, usual: Preprocessing, crop: float, options: dict[str, Any]) -> Entry:
    found = _NAME.fullmatch(name)
    if found is None:
        raise ValueError(f"{name}: the name gives no size")
    width, depth, heads, mlp_width = SIZES[found["size"] + ("_plus" if "_plus" in found["rest"] else "")]
    last = name.rpartition("_")[2]
    sizes: dict[str, Any] = {"width": width, "depth": depth, "num_heads": heads, "mlp_width": mlp_width}
    sizes |= {"image_size": int(last)} if last.isdigit() else {}
    sizes |= {"patch_size": int(found["patch"])} if found["patch"] else {}
    config = ViTConfig(**sizes | options)
    return Entry(name, VIT, config, cropped(usual, config.image_size, crop))


def _plain() -> list[Entry]:
    """ViTs with the AugReg checkpoints' data configuration (timm: crop 0.9 at 224, 1.0 at 384).

    They were trained in Flax, whose default GELU is the tanh form. timm evaluates them with erf. So do we,
    even for the original `.npz` files.
    """
    at_224 = """vit_tiny_patch16_224 vit_small_patch16_224 vit_base_patch16_224 vit_large_patch16_224
        vit_small_patch32_224 vit_base_patch32_224 vit_large_patch32_224 vit_base_patch8_224
        vit_large_patch14_224 vit_huge_patch14_224 vit_giant_patch14_224 vit_gigantic_patch14_224"""
    at_384 = """vit_tiny_patch16_384 vit_small_patch16_384 vit_base_patch16_384 vit_large_patch16_384
        vit_small_patch32_384 vit_base_patch32_384 vit_large_patch32_384"""
    miil = vits(
        "vit_base_patch16_224_miil",
        replace(PIXELS, interpolation="bilinear"),
        0.875,
        image_size=224,
        qkv_bias="none",
    )
    return [
        *vits(at_224, HALF, 0.9),
        *vits(at_384, HALF, 1.0),
        *vits("vit_small_patch8_224", IMAGENET, 0.9),
        *miil,
        *vits("vit_base_patch16_plus_240 vit_base_patch32_plus_256", HALF, 0.95, layer_scale=True),
        *vits("flexivit_small flexivit_base flexivit_large", HALF, 0.95, image_size=240, positions="patches"),
        *vits("vit_small_patch16_36x1_224", HALF, 0.9, depth=36, layer_scale=True),
    ]


def _deit() -> list[Entry]:
    """DeiT as its authors evaluate it: resized to 256/224 of the crop, bicubic. DeiT III as timm does.

    timm's copies of DeiT checkpoints say crop 0.9 (resize 248) at 224, and 1.0 at 384. A config.json beside
    the weights has priority.
    """
    plain = "deit_tiny_patch16_224 deit_small_patch16_224 deit_base_patch16_224 deit_base_patch16_384"
    distilled = """deit_tiny_distilled_patch16_224 deit_small_distilled_patch16_224
        deit_base_distilled_patch16_224 deit_base_distilled_patch16_384"""
    at_224 = """deit3_small_patch16_224 deit3_medium_patch16_224 deit3_base_patch16_224
        deit3_large_patch16_224 deit3_huge_patch14_224"""
    at_384 = "deit3_small_patch16_384 deit3_base_patch16_384 deit3_large_patch16_384"
    third: dict[str, Any] = {"positions": "patches", "layer_scale": True}
    return [
        *vits(plain, IMAGENET, 224 / 256),
        *vits(distilled, IMAGENET, 224 / 256, distilled=True),
        *vits(at_224, IMAGENET, 0.9, **third),
        *vits(at_384, IMAGENET, 1.0, **third),
    ]


def _self_supervised() -> list[Entry]:
    """Backbones that are published without a classifier, and BEiT, which was tuned after its pre-training."""
    beit: dict[str, Any] = {"positions": "none", "relative_positions": True, "qkv_bias": "qv"}
    beit |= {"layer_scale": True, "pool": "mean", "norm_pooled": True}
    registers: dict[str, Any] = {"positions": "patches", "layer_scale": True}
    dinov2 = "vit_small_patch14_dinov2 vit_base_patch14_dinov2 vit_large_patch14_dinov2"
    with_registers = dinov2.replace("_dinov2", "_reg4_dinov2")
    tips = "vit_base_patch14_reg1_tipsv2 vit_large_patch14_reg1_tipsv2 vit_so400m_patch14_reg1_tipsv2"
    at_384 = "beit_base_patch16_384 beit_large_patch16_384 beit_large_patch16_512"
    return [
        *vits(dinov2, IMAGENET, 1.0, image_size=518, layer_scale=True),
        *vits(with_registers, IMAGENET, 1.0, image_size=518, registers=4, **registers),
        *vits(tips, PIXELS, 1.0, image_size=448, registers=1, **registers),
        *vits("beit_base_patch16_224 beit_large_patch16_224", HALF, 0.9, **beit),
        *vits(at_384, HALF, 1.0, **beit),
        *vits("beitv2_base_patch16_224", IMAGENET, 0.9, **beit),
        *vits("beitv2_large_patch16_224", IMAGENET, 0.95, **beit),
        *vits("eva_large_patch14_196 eva_large_patch14_336", CLIP, 1.0, pool="mean", norm_pooled=True),
    ]


def _language() -> list[Entry]:
    """Image towers of CLIP and SigLIP. The second SigLIP, with new sizes, has the tanh form of GELU."""
    clip: dict[str, Any] = {"pre_norm": True, "eps": 1e-5}
    small = """vit_xsmall_patch16_clip_224 vit_medium_patch16_clip_224 vit_medium_patch32_clip_224
        vit_betwixt_patch32_clip_224 vit_base_patch32_clip_224"""
    large = """vit_base_patch16_clip_384 vit_base_patch16_plus_clip_240 vit_base_patch32_clip_256
        vit_base_patch32_clip_384 vit_base_patch32_clip_448 vit_huge_patch14_clip_224
        vit_huge_patch14_clip_336 vit_huge_patch14_clip_378 vit_giant_patch14_clip_224
        vit_gigantic_patch14_clip_224 vit_gigantic_patch14_clip_378"""
    quick = """vit_base_patch16_clip_quickgelu_224 vit_large_patch14_clip_quickgelu_224
        vit_large_patch14_clip_quickgelu_336 vit_huge_patch14_clip_quickgelu_224
        vit_huge_patch14_clip_quickgelu_378 vit_gigantic_patch14_clip_quickgelu_224"""
    entries = [
        *vits(small, CLIP, 0.9, **clip),
        *vits("vit_base_patch16_clip_224", CLIP, 0.95, **clip),
        *vits(large, CLIP, 1.0, **clip),
        *vits("vit_large_patch14_clip_224 vit_large_patch14_clip_336", HALF, 1.0, **clip),
        *vits("vit_base_patch32_clip_quickgelu_224", CLIP, 0.9, gelu_form="quick", **clip),
        *vits(quick, CLIP, 1.0, gelu_form="quick", **clip),
    ]
    siglip = """vit_base_patch16_siglip_224 vit_base_patch16_siglip_256 vit_base_patch16_siglip_384
        vit_base_patch16_siglip_512 vit_large_patch16_siglip_256 vit_large_patch16_siglip_384
        vit_so400m_patch14_siglip_224 vit_so400m_patch14_siglip_378 vit_so400m_patch14_siglip_384"""
    second = """vit_base_patch32_siglip_256 vit_large_patch16_siglip_512 vit_so400m_patch16_siglip_256
        vit_so400m_patch16_siglip_384 vit_so400m_patch16_siglip_512 vit_giantopt_patch16_siglip_256
        vit_giantopt_patch16_siglip_384"""
    for pool, kind in (("attention", "_siglip_"), ("mean", "_siglip_gap_")):
        options: dict[str, Any] = {"class_token": False, "pool": pool}
        entries += vits(siglip.replace("_siglip_", kind), HALF, 0.9, **options)
        entries += vits(second.replace("_siglip_", kind), HALF, 0.9, gelu_form="tanh", **options)
    pali = "vit_so400m_patch14_siglip_gap_448 vit_so400m_patch14_siglip_gap_896"
    return entries + vits(pali, HALF, 1.0, class_token=False, pool="mean")


def _pooled() -> list[Entry]:
    """ViTs without a class token, whose patches are pooled."""
    mean: dict[str, Any] = {"class_token": False, "pool": "mean"}
    after: dict[str, Any] = mean | {"norm_pooled": True}
    no_bias: dict[str, Any] = {"layer_scale": True, "qkv_bias": "none"}
    registers: dict[str, Any] = after | {"positions": "patches", "layer_scale": True}
    one = """vit_wee_patch16_reg1_gap_256 vit_little_patch16_reg1_gap_256 vit_medium_patch16_reg1_gap_256
        vit_betwixt_patch16_reg1_gap_256"""
    four = """vit_little_patch16_reg4_gap_256 vit_medium_patch16_reg4_gap_256
        vit_mediumd_patch16_reg4_gap_256 vit_betwixt_patch16_reg4_gap_256"""
    four_at_384 = "vit_mediumd_patch16_reg4_gap_384 vit_betwixt_patch16_reg4_gap_384"
    medium = """vit_medium_patch16_gap_240 vit_medium_patch16_gap_256 vit_medium_patch16_gap_384
        vit_betwixt_patch16_gap_256"""
    so150m2 = """vit_so150m2_patch16_reg1_gap_256 vit_so150m2_patch16_reg1_gap_384
        vit_so150m2_patch16_reg1_gap_448"""
    return [
        *vits("vit_base_patch16_gap_224", HALF, 0.9, num_heads=16, **mean),
        *vits("vit_huge_patch14_gap_224 vit_giant_patch16_gap_224", IMAGENET, 0.9, **mean),
        *vits("vit_huge_patch16_gap_448", IMAGENET, 1.0, **mean),
        *vits(medium, HALF, 0.95, **mean, **no_bias),
        *vits(one, HALF, 0.95, registers=1, **registers),
        *vits(four, HALF, 0.95, registers=4, **registers),
        *vits(four_at_384, HALF, 1.0, registers=4, **registers),
        *vits("vit_base_patch16_reg4_gap_256", HALF, 0.9, registers=4, positions="patches", **after),
        *vits(so150m2, HALF, 1.0, registers=1, **after, **no_bias),
        *vits("vit_so150m_patch16_reg4_gap_256", HALF, 0.95, registers=4, **mean),
        *vits("vit_so150m_patch16_reg4_gap_384", HALF, 1.0, registers=4, **mean),
        *vits("vit_so150m_patch16_reg4_map_256", HALF, 0.9, registers=4, class_token=False, pool="attention"),
    ]


ENTRIES = (
    *_plain(),
    *_deit(),
    *_self_supervised(),
    *_language(),
    *_pooled(),
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
