"""Facts beside the weights of every family: what agrees is harmless, what contradicts is refused."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from evolq_jax.errors import UserError
from evolq_jax.models.reading.facts import apply_facts
from evolq_jax.models.reading.timm_config import read_timm
from evolq_jax.models.registry import REGISTRY, VIT, Entry, get_entry

CNNS = ("resnet18", "resnet20_cifar10", "regnetx_032")
FAMILIES = (*CNNS, "mobilenetv2_100", "levit_128s", "swin_tiny_patch4_window7_224")


def config_with(name: str, **settings: Any) -> Any:
    """The config of a model beside whose weights timm's config.json has these settings."""
    entry = get_entry(name)
    settings = {"pretrained_cfg": {}, **settings}
    facts = read_timm(Path("config.json"), settings, entry.config, entry.preprocessing)
    return apply_facts(entry.config, facts.model, facts.sizes(entry.config.image_size)[0])


@pytest.mark.parametrize("name", FAMILIES)
def test_the_mean_is_what_every_family_but_vits_pools(name: str) -> None:
    assert config_with(name, global_pool="avg") == get_entry(name).config
    with pytest.raises(UserError, match='global_pool is "max"'):
        config_with(name, global_pool="max")
    with pytest.raises(UserError, match='global_pool is "token", and the network named has "mean"'):
        config_with(name, model_args={"global_pool": "token"})


@pytest.mark.parametrize("name", CNNS)
def test_relu_is_what_these_networks_have(name: str) -> None:
    assert config_with(name, model_args={"act_layer": "relu"}) == get_entry(name).config
    with pytest.raises(UserError, match='act_layer is "gelu", and the network named has "relu"'):
        config_with(name, model_args={"act_layer": "gelu"})


def test_other_activations() -> None:
    assert config_with("levit_128s", model_args={"act_layer": "hard_swish"}) == get_entry("levit_128s").config
    assert config_with("mobilenetv2_100", model_args={"act_layer": "relu6"}).num_classes == 1000
    tanh = config_with("swin_tiny_patch4_window7_224", model_args={"act_layer": "gelu_tanh"})
    assert tanh.gelu_form == "tanh"


@pytest.mark.parametrize(
    ("args", "changes"),
    [
        ({"global_pool": "avg"}, {"pool": "mean", "norm_pooled": True}),
        ({"global_pool": "avg", "fc_norm": False}, {"pool": "mean"}),
        (
            {"global_pool": "avg", "class_token": False},
            {"pool": "mean", "norm_pooled": True, "class_token": False},
        ),
        ({"global_pool": "map", "class_token": False}, {"pool": "attention", "class_token": False}),
        ({"reg_tokens": 4, "no_embed_class": True}, {"registers": 4, "positions": "patches"}),
        ({"init_values": 1e-5}, {"layer_scale": True}),
        ({"qk_norm": True}, {"qk_norm": True}),
        ({"qkv_bias": False}, {"qkv_bias": "none"}),
        ({"pre_norm": True}, {"pre_norm": True}),
        ({"act_layer": "quick_gelu"}, {"gelu_form": "quick"}),
    ],
)
def test_variants_of_vits_are_set(args: dict[str, Any], changes: dict[str, Any]) -> None:
    name = "vit_tiny_patch16_224"
    assert config_with(name, model_args=args) == replace(get_entry(name).config, **changes)


def test_sizes_of_stages_are_set() -> None:
    sizes = {"depths": [2, 2, 18, 2], "embed_dim": 128, "num_heads": [4, 8, 16, 32], "window_size": 7}
    base = get_entry("swin_base_patch4_window7_224").config
    assert config_with("swin_tiny_patch4_window7_224", model_args=sizes) == base
    assert config_with("swin_tiny_patch4_window7_224", model_args={"mlp_ratio": 4.0, "qkv_bias": True})
    with pytest.raises(UserError, match="mlp_ratio is 3"):
        config_with("swin_tiny_patch4_window7_224", model_args={"mlp_ratio": 3})
    assert config_with("resnet18", model_args={"layers": [3, 4, 6, 3]}) == get_entry("resnet34").config


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        ("vit_tiny_patch16_224", {"num_heads": 5}, "num_heads is 5, which does not divide the width 192"),
        ("vit_tiny_patch16_224", {"depth": 10**9}, "depth is 1000000000, and the network named has 12"),
        ("vit_tiny_patch16_224", {"embed_dim": 0}, "embed_dim is 0"),
        ("vit_tiny_patch16_224", {"mlp_ratio": 1e29}, "mlp_ratio is 1e.29"),
        (
            "swin_tiny_patch4_window7_224",
            {"num_heads": [3, 6, 12, 25]},
            "num_heads is 25, which does not divide",
        ),
        ("swin_tiny_patch4_window7_224", {"depths": [2, 2]}, "depths is .2, 2., and the network named has"),
        ("swin_tiny_patch4_window7_224", {"depths": [2, 2, 3, 2]}, "depths .* must be even"),
        ("swin_tiny_patch4_window7_224", {"window_size": 12}, "image_size 224 is no multiple of 384"),
        ("resnet18", {"layers": [2, 2, "2", 2]}, "layers is"),
    ],
)
def test_sizes_that_cannot_be(name: str, args: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        config_with(name, model_args=args)


def test_a_window_and_the_size_that_it_needs() -> None:
    cfg, args = {"input_size": [3, 384, 384]}, {"window_size": 12}
    config = config_with("swin_tiny_patch4_window7_224", pretrained_cfg=cfg, model_args=args)
    assert (config.window, config.image_size) == (12, 384)


def test_the_width_of_the_mlp_follows_from_its_ratio() -> None:
    args = {"embed_dim": 384, "mlp_ratio": 3, "num_heads": 6}
    assert config_with("vit_tiny_patch16_224", model_args=args).mlp_width == 1152


@pytest.mark.parametrize(
    "entry", {entry.family: entry for entry in REGISTRY.values()}.values(), ids=lambda entry: entry.name
)
def test_every_family_says_what_it_pools_and_activates(entry: Entry) -> None:
    assert hasattr(entry.config, "gelu_form") != hasattr(entry.config, "activation")
    assert hasattr(entry.config, "pool") or entry.family is VIT
