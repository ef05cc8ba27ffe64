"""Which sites each scheme quantizes in the families other than the plain ViT, in full."""

from typing import Any

import pytest

from evolq_jax.quant.scheme import QuantConfig, resolve
from evolq_jax.quant.spec import QuantSpec
from tests.families import ENTRIES, TRANSFORMERS, make_small
from tests.plain import PLAIN

ALL = pytest.mark.parametrize("name", ENTRIES)


def within(modules: str, names: str) -> set[str]:
    """`module/name` of all; separated by spaces."""
    return {f"{module}/{name}" for module in modules.split() for name in names.split()}


SWIN_BLOCKS = "layers.0/regular layers.0/shifted layers.1/regular layers.1/shifted"
LEVIT_ATTENTION = "stages.0/attn stages.1/attn stages.1.downsample/attn_downsample"
LEVIT_MLP = "stages.0/mlp stages.1/mlp stages.1.downsample/mlp"

# What matrix products and convolutions read.
OPERANDS = {
    "small_resnet": {"image", "act1", "pool"} | within("layer1.0 layer2.0 layer2", "act1 act2 act3"),
    "small_cifar_resnet": {"image", "act1", "pool"}
    | within("layer1 layer2.0 layer2 layer3.0 layer3", "act1 act2"),
    "small_regnet": {"image", "stem", "pool"} | within("s1.b1 s2.b1 s2", "act1 act2 act3"),
    "small_mobilenet": {"image", "act1", "act2", "pool"}
    | within("blocks.0.0", "act1 sum")
    | within("blocks.1.0 blocks.1 blocks.2.0", "act1 act2 sum"),
    "small_swin": {"image", "layers.1.downsample/norm", "pool"}
    | within(SWIN_BLOCKS, "norm1 norm2 mlp/gelu")
    | within(SWIN_BLOCKS, "attn/q attn/k attn/v attn/softmax attn/context"),
    "small_levit": {"image", "pool", "stages.1.downsample/attn_downsample/proj"}
    | within("stem", "act1 act2 act3")
    | within("stages.0 stages.1", "residual_in residual_mid")
    | within("stages.1.downsample", "residual_in")
    | within(LEVIT_ATTENTION, "q k v softmax act")
    | within(LEVIT_MLP, "act"),
    "small_siglip": {"image", "norm", "pool"}
    | within("blocks", "norm1 norm2 mlp/gelu attn/q attn/k attn/v attn/softmax attn/context")
    | within("attn_pool", "latent q k v softmax context norm mlp/gelu"),
    "small_beit": {"image", "norm"}
    | within("blocks", "norm1 norm2 mlp/gelu attn/q attn/k attn/v attn/softmax attn/context"),
}
# What only `fully_quantized` has: results that nothing multiplies as they are.
RESULTS = {
    "small_resnet": {"fc"}
    | within("layer1.0 layer2.0 layer2", "conv3")
    | within("layer1.0 layer2.0", "downsample"),
    "small_cifar_resnet": {"linear"} | within("layer1 layer2.0 layer2 layer3.0 layer3", "conv2"),
    "small_regnet": {"head"} | within("s1.b1 s2.b1 s2", "conv3") | within("s1.b1 s2.b1", "downsample"),
    "small_mobilenet": {"classifier"} | within("blocks.1", "conv_pwl"),
    "small_swin": {"residual_out", "norm", "head"}
    | within("patch_embed", "proj norm")
    | within("layers.1.downsample", "residual_in")
    | within(SWIN_BLOCKS, "residual_in residual_mid mlp/fc2 attn/qkv attn/logits attn/biased_logits")
    | within(SWIN_BLOCKS, "attn/relative_position_bias_table attn/proj"),
    "small_levit": {"residual_out", "head", "head_dist"}
    | within("stem", "conv1 conv2 conv3 conv4")
    | within("stages.0/attn stages.1/attn", "proj")
    | within(LEVIT_ATTENTION, "logits biased_logits context")
    | within(LEVIT_MLP, "ln1 ln2"),
    "small_siglip": {
        "patch_embed/proj",
        "tokens",
        "pos_embed",
        "residual_pre",
        "norm_pre",
        "residual_out",
        "head",
    }
    | within("blocks", "residual_in residual_mid attn/qkv attn/logits attn/proj mlp/fc2")
    | within("attn_pool", "kv logits residual_mid mlp/fc2"),
    "small_beit": {"patch_embed/proj", "residual_out", "residual_pool", "head"}
    | within("blocks", "residual_in residual_mid attn/qkv attn/logits attn/biased_logits")
    | within("blocks", "attn/relative_position_bias_table attn/proj mlp/fc2"),
}
# Parts of a layer's output, which `fully_quantized` has quantized already.
PARTS = {
    "small_swin": within(SWIN_BLOCKS, "attn/q attn/k attn/v"),
    "small_siglip": within("blocks", "attn/v") | within("attn_pool", "k v"),  # norms follow q and k
    "small_beit": within("blocks", "attn/q attn/k attn/v"),
}
# What additions of the residual stream add, where nothing multiplies it as it is.
ADDENDS = {
    "small_resnet": within("layer1.0 layer2.0 layer2", "conv3") | within("layer1.0 layer2.0", "downsample"),
    "small_cifar_resnet": within("layer1 layer2.0 layer2 layer3.0 layer3", "conv2"),
    "small_regnet": within("s1.b1 s2.b1 s2", "conv3") | within("s1.b1 s2.b1", "downsample"),
    "small_mobilenet": within("blocks.1", "conv_pwl"),
    "small_swin": within(SWIN_BLOCKS, "residual_in residual_mid attn/proj mlp/fc2"),
    "small_levit": within("stages.0/attn stages.1/attn", "proj") | within(LEVIT_MLP, "ln2"),
    "small_siglip": {"tokens", "pos_embed"}
    | within("blocks", "residual_in residual_mid attn/proj mlp/fc2")
    | within("attn_pool", "residual_mid mlp/fc2"),
    "small_beit": within("blocks", "residual_in residual_mid attn/proj mlp/fc2"),
}


def activations(name: str, scheme: str, **more: Any) -> dict[str, QuantSpec]:
    sites = make_small(name).sites
    integer = scheme == "fully_quantized"
    config = QuantConfig(scheme, integer_layer_norm=integer, **PLAIN, **more)  # type: ignore[arg-type]
    return {site: spec for site, spec in resolve(config, sites).specs if not sites[site].is_weight}


@ALL
def test_matmul_quantizes_what_products_and_convolutions_read(name: str) -> None:
    specs = activations(name, "matmul")
    assert set(specs) == OPERANDS[name]
    assert not any(spec.per_channel or spec.integer_op for spec in specs.values())


@ALL
def test_deploy_has_plain_scales_alone_and_quantizes_what_additions_add_on_request(name: str) -> None:
    assert set(activations(name, "deploy")) == OPERANDS[name]
    specs = activations(name, "deploy", quantize_sums=True)
    assert set(specs) == OPERANDS[name] | ADDENDS[name]
    assert set(specs.values()) == {QuantSpec()}
    sites = make_small(name).sites
    weights = [spec for site, spec in resolve(QuantConfig("deploy"), sites).specs if sites[site].is_weight]
    assert all(spec.signed and spec.per_channel for spec in weights)


@ALL
def test_fully_quantized_has_every_result_once(name: str) -> None:
    specs = activations(name, "fully_quantized")
    assert set(specs) == (OPERANDS[name] | RESULTS[name]) - PARTS.get(name, set())
    stream = {site for site, spec in specs.items() if spec.observer.name == "ptf"}
    norms = {site for site, spec in specs.items() if spec.integer_op}
    assert stream == {site for site in specs if "residual" in site}
    assert bool(stream) == (name in TRANSFORMERS)
    if name == "small_swin":
        edges = {"norm", "patch_embed/norm", "layers.1.downsample/norm"}
        assert norms == edges | within(SWIN_BLOCKS, "norm1 norm2")
    elif name in ("small_siglip", "small_beit"):
        edges = {"norm"} if name == "small_beit" else {"norm", "norm_pre", "attn_pool/norm"}
        assert norms == edges | within("blocks", "norm1 norm2")
    else:
        assert not norms


@ALL
def test_weights_are_quantized_by_channel_and_the_edges_apart(name: str) -> None:
    sites = make_small(name).sites
    weights = {site for site, info in sites.items() if info.is_weight}
    specs, bits = resolve(QuantConfig(weight_bits=3, edge_weight_bits=8), sites)
    heads = 2 if name == "small_levit" else 1
    assert len([site for site in weights if bits[site] == 8]) == 1 + heads
    assert {bits[site] for site in weights} == {3, 8}
    assert all(spec.per_channel for site, spec in specs if site in weights)
    assert not any("bn" in site.split("/") for site in weights)
