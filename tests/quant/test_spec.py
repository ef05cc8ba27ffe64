from dataclasses import FrozenInstanceError, replace
from typing import Any

import pytest

from evolq_jax.errors import UserError
from evolq_jax.quant.observers import OBSERVERS
from evolq_jax.quant.quantizers.shifted_log import SHIFTED_LOG
from evolq_jax.quant.quantizers.twin import TWIN
from evolq_jax.quant.scheme import QuantConfig, Rule, resolve
from evolq_jax.quant.spec import QuantSpec, scope, select
from tests.tiny import Tiny

# The official code's quantizers, under our names.
OFFICIAL = {
    "image", "patch_embed/proj", "tokens", "pos_embed", "residual_out", "norm", "head",
    "patch_embed/proj/weight", "head/weight",
    *(
        f"blocks/{name}"
        for name in (
            "residual_in", "norm1", "attn/qkv", "attn/logits", "attn/softmax", "attn/context", "attn/proj",
            "residual_mid", "norm2", "mlp/gelu", "mlp/fc2",
            "attn/qkv/weight", "attn/proj/weight", "mlp/fc1/weight", "mlp/fc2/weight",
        )
    ),
}  # fmt: skip
WEIGHTS = {name for name in OFFICIAL if name.endswith("/weight")}


@pytest.mark.parametrize("bits", [1, 9, -4])
def test_bits_out_of_range_are_refused(bits: int, tiny: Tiny) -> None:
    with pytest.raises(UserError, match=f"the bits of 'head/weight' must be from 2 to 8, not {bits}"):
        resolve(QuantConfig(rules=(Rule("head/weight", bits=bits),)), tiny.sites)


def test_fully_quantized_is_every_site_of_the_official_code(tiny: Tiny) -> None:
    config = QuantConfig(
        scheme="fully_quantized", weight_bits=3, edge_weight_bits=None, activation_bits=6, softmax_bits=5,
        weight_observer="minmax", activation_observer="omse", integer_layer_norm=True, bias_correction=True,
        residual_observer="ptf", softmax_quantizer="uniform", gelu_quantizer="uniform", quantize_image=True,
    )  # fmt: skip
    found, bits = resolve(config, tiny.sites)
    specs = dict(found)
    assert set(specs) == set(bits) == OFFICIAL
    assert specs["blocks/residual_in"] == QuantSpec(per_channel=True, observer=OBSERVERS["ptf"])
    assert specs["blocks/attn/softmax"] == QuantSpec(observer=OBSERVERS["omse"])
    assert specs["blocks/norm1"] == QuantSpec(observer=OBSERVERS["omse"], integer_op=True)
    assert specs["blocks/mlp/gelu"] == QuantSpec(observer=OBSERVERS["omse"])
    inside = {name: width for name, width in bits.items() if name.startswith("blocks/")}
    assert inside.pop("blocks/attn/softmax") == 5
    assert all(width == (3 if name in WEIGHTS else 6) for name, width in inside.items())
    for name in WEIGHTS:
        assert specs[name] == QuantSpec(per_channel=True, observer=OBSERVERS["minmax"], bias_correction=True)


def test_deploy_is_what_products_and_on_request_additions_read(tiny: Tiny) -> None:
    configs = QuantConfig("matmul"), QuantConfig("deploy", quantize_sums=True), QuantConfig("deploy")
    found = [resolve(config, tiny.sites) for config in configs]
    matmul, deploy, usual = (dict(specs) for specs, _ in found)
    added = {"tokens", "pos_embed"} | {
        f"blocks/{name}" for name in ("residual_in", "residual_mid", "attn/proj", "mlp/fc2")
    }
    assert set(deploy) == set(matmul) | added
    assert usual.items() == {name: spec for name, spec in deploy.items() if name not in added}.items()
    omse = QuantSpec(observer=OBSERVERS["omse"])  # where nothing else is said
    assert all(spec == omse for name, spec in deploy.items() if name not in WEIGHTS)
    assert {found[1].bits[name] for name in deploy if name not in WEIGHTS} == {8}
    assert all(deploy[name].signed and not matmul[name].signed for name in WEIGHTS)


def test_quantized_sums_are_for_deploy() -> None:
    with pytest.raises(UserError, match="quantize_sums is for"):
        QuantConfig("matmul", quantize_sums=True)


def test_signed_activations_are_symmetric_where_steps_are_equal(tiny: Tiny) -> None:
    config = QuantConfig("matmul", activation_bits=4, signed_activations=True)
    specs, _ = resolve(config, tiny.sites)
    unsigned = {name for name, spec in specs if not spec.signed and name not in WEIGHTS}
    assert unsigned == {"blocks/attn/softmax", "blocks/mlp/gelu"}  # whose quantizers are logarithms
    deployed, _ = resolve(QuantConfig("deploy", signed_activations=True), tiny.sites)
    assert all(spec.signed for _, spec in deployed)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"activation_bits": 4}, "activation_bits, edge_activation_bits and softmax_bits must be 8"),
        ({"softmax_bits": 4}, "softmax_bits must be 8"),
        ({"activation_observer": "pow2"}, "activation_observer must be for example omse"),
        ({"softmax_quantizer": "log"}, "softmax_quantizer must be uniform"),
        ({"gelu_quantizer": "twin"}, "gelu_quantizer must be uniform"),
        ({"bias_correction": True}, "bias_correction must be off"),
        ({"integer_layer_norm": True}, "under deploy the input of LayerNorm is not quantized"),
        ({"integer_softmax": True, "softmax_quantizer": "log2"}, "needs quant.scheme fully_quantized"),
    ],
)
def test_deploy_refuses_what_its_runtimes_cannot_execute(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        QuantConfig("deploy", **changes)


def test_matmul_is_operands_of_products_only(tiny: Tiny) -> None:
    specs, bits = resolve(QuantConfig(scheme="matmul", quantize_image=False), tiny.sites)
    operands = {"norm1", "attn/q", "attn/k", "attn/v", "attn/softmax", "attn/context", "norm2", "mlp/gelu"}
    assert set(dict(specs)) == set(bits) == WEIGHTS | {"norm"} | {f"blocks/{name}" for name in operands}
    assert bits["blocks/mlp/fc1/weight"] == 4
    assert bits["norm"] == 8


def test_the_first_and_last_weights_have_bits_of_their_own(tiny: Tiny) -> None:
    for edge_bits, want in ((6, 6), (None, 3)):
        bits = resolve(QuantConfig(weight_bits=3, edge_weight_bits=edge_bits), tiny.sites).bits
        assert bits["head/weight"] == bits["patch_embed/proj/weight"] == want
        assert {bits[name] for name in WEIGHTS if name.startswith("blocks/")} == {3}


def test_later_rules_win_and_keep_what_they_do_not_name(tiny: Tiny) -> None:
    rules = (Rule("*/weight", bits=3, signed=True), Rule("head/weight", bits=8))
    found, bits = resolve(QuantConfig(weight_observer="omse", rules=rules), tiny.sites)
    specs = dict(found)
    assert (bits["head/weight"], bits["blocks/attn/qkv/weight"]) == (8, 3)
    assert specs["head/weight"] == QuantSpec(signed=True, per_channel=True, observer=OBSERVERS["omse"])
    assert specs["blocks/attn/qkv/weight"] == QuantSpec(
        signed=True, per_channel=True, observer=OBSERVERS["omse"]
    )


def test_a_rule_leaves_sites_in_float_and_adds_others(tiny: Tiny) -> None:
    rules = (Rule("blocks/mlp/*", bits=0), Rule("blocks/attn/logits", observer="ema"))
    specs = dict(resolve(QuantConfig(rules=rules), tiny.sites).specs)
    assert not [name for name in specs if name.startswith("blocks/mlp")]
    assert specs["blocks/attn/logits"] == QuantSpec(observer=OBSERVERS["ema"])
    again = resolve(QuantConfig(rules=(Rule("*", bits=0), Rule("head/weight", bits=5))), tiny.sites)
    assert again == ((("head/weight", QuantSpec()),), {"head/weight": 5})


def test_a_rule_s_observer_and_quantizer_decide_on_factors_by_channel(tiny: Tiny) -> None:
    """As the scheme's own: else `pow2` would have one factor, and others a free scale for each channel."""
    rules = (
        Rule("blocks/norm1", observer="pow2"),
        Rule("blocks/attn/softmax", observer="pow2"),
        Rule("blocks/mlp/gelu", quantizer="twin"),
    )
    specs = dict(resolve(QuantConfig(rules=rules), tiny.sites).specs)
    assert specs["blocks/norm1"] == QuantSpec(per_channel=True, observer=OBSERVERS["pow2"])
    assert specs["blocks/attn/softmax"] == QuantSpec()
    assert specs["blocks/mlp/gelu"] == QuantSpec(signed=True, quantizer=TWIN)
    logarithm = QuantConfig(activation_observer="pow2", gelu_quantizer="shifted_log")
    uniform = replace(logarithm, rules=(Rule("*/gelu", quantizer="uniform"),))
    gelu = [dict(resolve(config, tiny.sites).specs)["blocks/mlp/gelu"] for config in (logarithm, uniform)]
    assert gelu == [QuantSpec(quantizer=SHIFTED_LOG), QuantSpec(per_channel=True, observer=OBSERVERS["pow2"])]
    rules = (Rule("blocks/norm2", per_channel=True), Rule("*", observer="omse"))
    specs = dict(resolve(QuantConfig(activation_observer="pow2", rules=rules), tiny.sites).specs)
    by_channel = {name for name, spec in specs.items() if spec.per_channel}
    assert by_channel == {name for name in specs if name in WEIGHTS} | {"blocks/norm2"}  # as it asks for


@pytest.mark.parametrize(
    "rule",
    [
        Rule("blocks/attn/qkv/weight", quantizer="log_sqrt2"),
        Rule("blocks/mlp/gelu", quantizer="log"),
        Rule("blocks/attn/softmax", quantizer="shifted_log"),
        Rule("blocks/norm1", quantizer="log2"),
    ],
)
def test_a_quantizer_is_for_its_sites(rule: Rule, tiny: Tiny) -> None:
    with pytest.raises(UserError, match=f"'{rule.pattern}' the quantizer '{rule.quantizer}', which is for"):
        resolve(QuantConfig(rules=(rule,)), tiny.sites)


@pytest.mark.parametrize(
    "rule",
    [
        Rule("blocks/mlp/gelu", bits=4),
        Rule("blocks/norm1", observer="pow2"),
        Rule("blocks/attn/softmax", quantizer="log2"),
        Rule("head/weight", signed=False),
    ],
)
def test_a_rule_does_not_get_round_what_deploy_executes(rule: Rule, tiny: Tiny) -> None:
    with pytest.raises(
        UserError, match=rf"a rule makes '{rule.pattern}' something other than.*change quant\.rules"
    ):
        resolve(QuantConfig("deploy", rules=(rule,)), tiny.sites)
    resolve(QuantConfig("deploy", rules=(replace(rule, bits=0),)), tiny.sites)


def test_a_pattern_without_sites_is_refused_with_a_hint(tiny: Tiny) -> None:
    message = r"'blocks/atn/qkv/weight' matches no .*did you mean 'blocks/attn/qkv/weight'"
    with pytest.raises(UserError, match=message):
        resolve(QuantConfig(rules=(Rule("blocks/atn/qkv/weight", bits=3),)), tiny.sites)
    with pytest.raises(UserError, match=r"'zzz' matches no .*the sites are: image"):
        select(["head", "zzz"], ["image", "head"])


def test_selected_sites_come_once_and_in_the_sites_order() -> None:
    sites = ["a/x", "b", "a/y/weight", "c"]
    assert select(["c", "a/*", "*/weight"], sites) == ("a/x", "a/y/weight", "c")


def test_scope_takes_off_the_segments_prefix() -> None:
    entries = {"blocks/a": 1, "blocks/b/c": 2, "blocksy/a": 3, "head": 4}
    assert scope(entries, "blocks") == {"a": 1, "b/c": 2}
    assert scope(entries, "")["head"] == 4


def test_configs_are_static_arguments() -> None:
    config = QuantConfig(rules=(Rule("*", bits=4),))
    assert hash(config) == hash(QuantConfig(rules=(Rule("*", bits=4),)))
    with pytest.raises(FrozenInstanceError):
        config.weight_bits = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    "fields",
    [
        {"scheme": "matmul", "integer_layer_norm": True},
        {"scheme": "matmul", "integer_softmax": True, "softmax_quantizer": "log2"},
        {"scheme": "fully_quantized", "integer_softmax": True, "softmax_quantizer": "uniform"},
    ],
)
def test_integer_operations_that_would_not_run_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"needs quant\.scheme fully_quantized"):
        QuantConfig(**fields)
