"""A small network of every family, with seeded parameters in which every layer has something to do."""

from dataclasses import replace
from functools import cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from evolq_jax.calibration.calibrate import calibrate
from evolq_jax.models import entries_staged
from evolq_jax.models.batch_norm import fold
from evolq_jax.models.cifar_resnet import CifarResNetConfig
from evolq_jax.models.levit import LeViTConfig
from evolq_jax.models.mobilenetv2 import MobileNetV2Config
from evolq_jax.models.registry import VIT, Entry, param_shapes
from evolq_jax.models.regnet import RegNetConfig
from evolq_jax.models.resnet import ResNetConfig
from evolq_jax.models.swin import SwinConfig
from evolq_jax.models.vit import ViTConfig
from evolq_jax.network.parts import ModelParts
from evolq_jax.network.sites import list_sites
from evolq_jax.quant.qparams import QParams, blank_qparams
from evolq_jax.quant.scheme import QuantConfig, resolve
from evolq_jax.quant.spec import Specs
from evolq_jax.search.config import ATTENTION_WEIGHTS
from evolq_jax.trees import unflatten
from evolq_jax.typing import Array, Params, Preprocessing, SiteInfo
from tests.models.recipe import generator

CLASSES = 6
SMALL_VIT = ViTConfig(
    image_size=16, patch_size=4, width=16, depth=2, num_heads=2, mlp_width=32, num_classes=CLASSES
)
ENTRIES = {
    name: Entry(name, family, config, Preprocessing(size=config.image_size, resize=None))
    for name, family, config in (
        (
            "small_swin",
            entries_staged.SWIN,
            SwinConfig(8, (4, 2), (2, 4), window=2, patch_size=2, image_size=16, num_classes=CLASSES),
        ),
        (
            "small_levit",
            entries_staged.LEVIT,
            LeViTConfig((16, 24), (2, 1), (2, 3), key_width=8, image_size=48, num_classes=CLASSES),
        ),
        (
            "small_resnet",
            entries_staged.RESNET,
            ResNetConfig((1, 3), bottleneck=True, stem_width=8, image_size=16, num_classes=CLASSES),
        ),
        (
            "small_cifar_resnet",
            entries_staged.CIFAR_RESNET,
            CifarResNetConfig(3, image_size=8, num_classes=CLASSES),
        ),
        (
            "small_regnet",
            entries_staged.REGNET,
            RegNetConfig((8, 16), (1, 3), group_width=4, stem_width=8, image_size=16, num_classes=CLASSES),
        ),
        (
            "small_mobilenet",
            entries_staged.MOBILENETV2,
            MobileNetV2Config((1, 3, 1), (4, 6, 8), 8, 12, image_size=16, num_classes=CLASSES),
        ),
        (
            "small_siglip",
            VIT,
            replace(
                SMALL_VIT,
                class_token=False,
                registers=2,
                positions="patches",
                pre_norm=True,
                qk_norm=True,
                pool="attention",
                gelu_form="quick",
            ),
        ),
        (
            "small_beit",
            VIT,
            replace(
                SMALL_VIT,
                positions="none",
                relative_positions=True,
                qkv_bias="qv",
                layer_scale=True,
                pool="mean",
                norm_pooled=True,
            ),
        ),
    )
}
TRANSFORMERS = ("small_swin", "small_levit", "small_siglip", "small_beit")
# what a search varies: attention of transformers, every convolution of a CNN's blocks
SEARCHED = {name: ATTENTION_WEIGHTS if name in TRANSFORMERS else ("*/conv*/weight",) for name in ENTRIES}


class Small(NamedTuple):
    parts: ModelParts
    unfolded: Params
    params: Params
    images: Array  # [12, size, size, 3], normalised
    sites: dict[str, SiteInfo]


def random_leaf(name: str, shape: tuple[int, ...], stacked: bool) -> np.ndarray:
    """Gains near one and matrices of about unit gain, so that no layer drowns the others."""
    x = generator(name).standard_normal(shape)
    inside = shape[1:] if stacked else shape
    if name.endswith("running_var"):
        x = np.exp(0.3 * x)
    elif len(inside) > 1:
        x = x * np.sqrt((2 if len(inside) == 4 else 1) / np.prod(inside[:-1]))  # convolutions: ReLU
    else:
        x = 0.2 * x + (1.0 if name.endswith(("weight", "layer_scale")) else 0.0)
    return x.astype(np.float32)


def unfolded_params(entry: Entry) -> Params:
    segments = {segment.name for segment in entry.make().segments}
    shapes = param_shapes(entry.family, entry.config)
    return unflatten({k: random_leaf(k, s, k.split("/")[0] in segments) for k, s in shapes.items()})


@cache
def make_small(name: str) -> Small:
    entry = ENTRIES[name]
    size = entry.preprocessing.size
    images = generator("images").standard_normal((12, size, size, 3)).astype(np.float32)
    unfolded = jax.tree.map(jnp.asarray, unfolded_params(entry))
    params = jax.tree.map(jnp.asarray, fold(unfolded))
    parts = entry.make()
    sites = list_sites(parts, params, (size, size, 3))
    return Small(parts, unfolded, params, jnp.asarray(images), sites)


def calibrate_small(name: str, config: QuantConfig) -> tuple[Small, Specs, QParams]:
    """The scales of `ranges` on all twelve images."""
    small = make_small(name)
    specs, bits = resolve(config, small.sites)
    given, start = (small.parts, specs, small.params, [small.images]), blank_qparams(specs, bits, small.sites)
    found = calibrate(*given, sites=small.sites, qparams=start, chunk=12)
    return small, specs, found.qparams
