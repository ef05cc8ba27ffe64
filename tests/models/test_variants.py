"""Logits of small variants against those recorded from timm (`record_timm.py`), on the same weights."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from evolq_jax.errors import UserError
from evolq_jax.models.checkpoint import load_checkpoint
from evolq_jax.models.convert import write
from evolq_jax.models.entries_staged import RESNET, SWIN
from evolq_jax.models.registry import REGISTRY, VIT, Entry, param_shapes
from evolq_jax.models.resnet import ResNetConfig
from evolq_jax.models.swin import SwinConfig
from evolq_jax.models.vit import ViTConfig, make_vit
from evolq_jax.network.reading import float_reading
from evolq_jax.network.run import forward
from evolq_jax.network.sites import list_sites
from evolq_jax.network.walk import whole_logits
from evolq_jax.quant.scheme import QuantConfig, resolve
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
    "resnet d": replace(RESNETS, image_size=35, deep_stem=(32, 32, 64), pooled_shortcut=True),
    "resnet s": replace(RESNETS, image_size=32, deep_stem=(64, 64, 128)),
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


@pytest.mark.parametrize(
    "config", [CONFIGS["qk-norm"], CONFIGS["beit, class token"], replace(TINY, distilled=True)]
)
def test_the_tokens_that_the_head_reads_are_enough(config: ViTConfig) -> None:
    """The last block computes only these, with all kinds of biases."""
    parts, rng, x = make_vit(config), np.random.default_rng(0), jnp.asarray(images(config.image_size, 3))
    shapes = param_shapes(VIT, config).items()
    params = unflatten({name: jnp.asarray(rng.normal(size=shape), jnp.float32) for name, shape in shapes})
    want = forward(parts, float_reading(params), x)
    np.testing.assert_allclose(whole_logits(parts, float_reading(params), x), want, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"class_token": False}, "pool 'token' reads the class token"),
        ({"distilled": True, "registers": 1}, "a distilled ViT .* has no registers"),
        ({"relative_positions": True, "registers": 1}, "know patches and a class token, no other"),
        ({"norm_pooled": True}, "norm_pooled is for the pool 'mean', not for 'token'"),
        ({"image_size": 3}, "image_size 3 is smaller than a patch of 4"),
    ],
)
def test_options_that_contradict_each_other_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        replace(TINY, **options)


def test_layer_scale_is_folded_into_the_layer_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = Entry("variant", VIT, CONFIGS["deit3"], Preprocessing(8, None))
    monkeypatch.setitem(REGISTRY, "variant", entry)
    path = saved(entry, tmp_path / "w.safetensors")
    file, got = load_file(path), load_checkpoint("variant", path).params["blocks"]
    for number, module, layer in ((1, "attn", "proj"), (2, "mlp", "fc2")):
        gain, key = file[f"blocks.1.ls{number}.gamma"], f"blocks.1.{module}.{layer}"
        params = got[module][layer]
        assert set(params) == {"weight", "bias"}
        np.testing.assert_allclose(params["weight"][1], file[f"{key}.weight"].T * gain, rtol=1e-6)
        np.testing.assert_allclose(params["bias"][1], file[f"{key}.bias"] * gain, rtol=1e-6)


def test_what_a_variant_has_beside_a_plain_vit_is_named_where_it_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = Entry("variant", VIT, CONFIGS["deit3"], Preprocessing(8, None))
    monkeypatch.setitem(REGISTRY, "variant", entry)
    path = saved(entry, tmp_path / "w.safetensors")
    weights = {key: array for key, array in load_file(path).items() if key != "blocks.0.ls1.gamma"}
    save_file(weights, path)
    with pytest.raises(UserError, match=r"lacks 1 keys: blocks\.0\.ls1\.gamma"):
        load_checkpoint("variant", path)


def test_a_deep_stem_and_pooled_shortcuts_are_quantized_where_convolutions_read() -> None:
    config = CONFIGS["resnet d"]
    params = unflatten(
        {leaf: np.empty(shape, np.float32) for leaf, shape in param_shapes(RESNET, config).items()}
    )
    sites = list_sites(RESNET.make(config), params, (35, 35, 3))
    specs, bits = resolve(QuantConfig("matmul", weight_bits=3, edge_weight_bits=8), sites)
    read = {site for site, _ in specs if not sites[site].is_weight}
    assert {"conv1/act0", "conv1/act3", "act1", "layer2.0/pool", "layer4.0/pool"} <= read
    assert "layer1.0/pool" not in sites  # without a stride
    assert {site for site, n in bits.items() if n == 8 and sites[site].is_weight} == {
        "conv1/0/weight",
        "fc/weight",
    }
