"""Logits of small variants against those recorded from timm (`record_timm.py`), on the same weights."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from evolq_jax.models.checkpoint import load_checkpoint
from evolq_jax.models.convert import write
from evolq_jax.models.entries_staged import RESNET, SWIN
from evolq_jax.models.registry import REGISTRY, VIT, Entry, param_shapes
from evolq_jax.models.resnet import ResNetConfig
from evolq_jax.models.swin import SwinConfig
from evolq_jax.models.vit import ViTConfig
from evolq_jax.trees import unflatten
from evolq_jax.typing import Preprocessing
from tests.models.recipe import images, weight
from tests.models.seeded import TINY, logits

RECORDED = json.loads(Path(__file__).with_name("timm_variants.json").read_text(encoding="utf-8"))
BEIT = replace(
    TINY,
    positions="none",
    relative_positions=True,
    qkv_bias="qv",
    layer_scale=True,
    pool="mean",
    norm_pooled=True,
)
SIGLIP = replace(TINY, class_token=False, pool="attention")
RESNETS = ResNetConfig((1, 2, 1, 1), bottleneck=True, num_classes=5)

CONFIGS: dict[str, ViTConfig | ResNetConfig | SwinConfig] = {
    "registers": replace(TINY, registers=2),
    "dinov2 registers": replace(TINY, registers=4, positions="patches", layer_scale=True),
    "deit3": replace(TINY, positions="patches", layer_scale=True),
    "qk-norm": replace(TINY, qk_norm=True),
    "mean": replace(TINY, class_token=False, pool="mean"),
    "mean, registers": replace(
        TINY,
        class_token=False,
        pool="mean",
        norm_pooled=True,
        positions="patches",
        registers=3,
        layer_scale=True,
    ),
    "mean, class token": replace(TINY, pool="mean", norm_pooled=True),
    "clip": replace(TINY, pre_norm=True, gelu_form="quick"),
    "siglip": SIGLIP,
    "siglip, registers": replace(SIGLIP, registers=2),
    "siglip2": replace(SIGLIP, gelu_form="tanh"),
    "no bias": replace(TINY, qkv_bias="none"),
    "patches that leave pixels": replace(TINY, image_size=11),
    "beit": BEIT,
    "beit, class token": replace(BEIT, pool="token", norm_pooled=False),
    "relative positions, all": replace(BEIT, positions="all"),
    "resnext": replace(RESNETS, image_size=33, groups=8, group_width=8),
    "wide resnet": replace(RESNETS, image_size=40, group_width=128),
    "swin, window 12": SwinConfig(8, (2, 2), (2, 4), window=12, patch_size=2, image_size=48, num_classes=5),
}
FAMILIES = {ViTConfig: VIT, ResNetConfig: RESNET, SwinConfig: SWIN}


def saved(entry: Entry, path: Path) -> Path:
    """A file of the recipe's weights, with the keys and shapes that the entry expects."""
    shapes = param_shapes(entry.family, entry.config)
    empty = unflatten({leaf: np.empty(shape, np.float32) for leaf, shape in shapes.items()})
    keys = write(entry.family.layouts[0], entry.config, empty)
    save_file({key: weight(key, array.shape) for key, array in keys.items()}, path)
    return path


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("fold", [True, False], ids=["folded", "as in the file"])
def test_logits_are_timms(name: str, fold: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = CONFIGS[name]
    size = config.image_size
    entry = Entry("variant", FAMILIES[type(config)], config, Preprocessing(size, None))
    monkeypatch.setitem(REGISTRY, "variant", entry)
    model = load_checkpoint("variant", saved(entry, tmp_path / "w.safetensors"), fold_batch_norm=fold)
    np.testing.assert_allclose(logits(model, images(size, 3)), RECORDED[name], atol=1e-4)
