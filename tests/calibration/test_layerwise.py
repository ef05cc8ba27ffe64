from collections.abc import Callable
from dataclasses import replace
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.timing import count_compilations
from evolq_jax.calibration.calibrate import calibrate
from evolq_jax.calibration.fisher import token_weights
from evolq_jax.calibration.link import TokenWeighting, WalkConfig
from evolq_jax.calibration.links.bias import BIAS
from evolq_jax.errors import UserError
from evolq_jax.network.reading import float_reading, quantized_reading
from evolq_jax.network.run import forward
from evolq_jax.network.sites import observe
from evolq_jax.objective.logits import kl
from evolq_jax.quant.qparams import QParams, blank_qparams
from evolq_jax.quant.scheme import QuantConfig, Rule, resolve
from evolq_jax.quant.sites import fake_quant_weights
from evolq_jax.quant.spec import Specs
from evolq_jax.trees import flatten
from evolq_jax.typing import Array, Params
from tests.tiny import Tiny, make_tiny

QUANT = QuantConfig("matmul", weight_bits=3, activation_bits=4, activation_observer="pow2")
LAYERS = ("attn/qkv", "attn/proj", "mlp/fc1", "mlp/fc2")
WEIGHTS = tuple(Rule(f"blocks/{layer}/weight", bits=2, per_channel=True) for layer in LAYERS)


@pytest.fixture(scope="module")
def specs(tiny: Tiny) -> Specs:
    return resolve(QUANT, tiny.sites).specs


def some_images(seed: int, count: int) -> Array:
    return jnp.asarray(np.random.default_rng(seed).standard_normal((count, 16, 16, 3)), jnp.float32) * 0.6


def run(tiny: Tiny, specs: Specs, *chain: str, chunk: int = 16) -> tuple[Params, QParams]:
    """Parameters and scales after a chain on 96 images."""
    given, sites = (tiny.parts, specs, tiny.params, [some_images(1, 96)]), tiny.sites
    start = blank_qparams(specs, resolve(QUANT, sites).bits, sites)
    found = calibrate(*given, sites=sites, qparams=start, chain=chain, chunk=chunk)
    return found.params, found.qparams


def divergence_of(tiny: Tiny, specs: Specs) -> Callable[[Params, QParams], Array]:
    """KL from the float network on images that calibration has not seen."""

    @jax.jit
    def found(params: Params, qparams: QParams) -> Array:
        images, quantized = some_images(9, 64), fake_quant_weights(specs, params, qparams)
        student = forward(tiny.parts, quantized_reading(specs, quantized, qparams), images)
        return kl(student, forward(tiny.parts, float_reading(tiny.params), images))

    return found


@pytest.fixture(scope="module")
def divergence(tiny: Tiny, specs: Specs) -> Callable[[Params, QParams], Array]:
    return divergence_of(tiny, specs)


@pytest.fixture(scope="module")
def corrected(tiny: Tiny, specs: Specs) -> dict[tuple[str, ...], tuple[Params, QParams]]:
    """Parameters and scales after `ranges` and these links."""
    chains = ((), ("bias",), ("gptq", "bias"), ("ridge", "gptq", "bias"))
    return {links: run(tiny, specs, "ranges", *links) for links in chains}


def test_each_step_brings_the_network_nearer_to_the_float_one(
    divergence: Callable[[Params, QParams], Array], corrected: dict[tuple[str, ...], tuple[Params, QParams]]
) -> None:
    plain, shifted, rounded, both = (float(divergence(*result)) for result in corrected.values())
    assert shifted < plain
    assert rounded < 0.9 * plain
    assert both < 0.9 * rounded


def test_rounded_weights_lie_on_their_grid_and_the_rest_is_untouched(
    tiny: Tiny, specs: Specs, corrected: dict[tuple[str, ...], tuple[Params, QParams]]
) -> None:
    params, qparams = corrected["ridge", "gptq", "bias"]
    before, after = flatten(tiny.params), flatten(params)
    quantized = flatten(jax.jit(lambda p, s: fake_quant_weights(specs, p, s))(params, qparams))
    layers = {f"blocks/{layer}/{leaf}" for layer in LAYERS for leaf in ("weight", "bias")}
    for name, leaf in after.items():
        assert np.array_equal(leaf, before[name]) == (name not in layers)
        if name in layers and name.endswith("weight"):
            np.testing.assert_allclose(quantized[name], leaf, atol=1e-5)


def test_bias_alone_changes_biases_alone(
    tiny: Tiny, corrected: dict[tuple[str, ...], tuple[Params, QParams]]
) -> None:
    (params, qparams), (_, plain) = corrected[("bias",)], corrected[()]
    changed = {
        name for name, leaf in flatten(params).items() if not np.array_equal(leaf, flatten(tiny.params)[name])
    }
    assert changed == {f"blocks/{layer}/bias" for layer in LAYERS}
    assert all(np.array_equal(qparams[name].scale, plain[name].scale) for name in plain)


def test_without_quantizers_nothing_is_corrected(tiny: Tiny) -> None:
    params, qparams = run(tiny, (), "ranges", "ridge", "bias")
    assert qparams == {}
    for name, leaf in flatten(params).items():
        np.testing.assert_allclose(leaf, flatten(tiny.params)[name], atol=2e-4)


def test_the_same_calibration_gives_the_same_bits_and_chunks_only_round(
    tiny: Tiny, specs: Specs, corrected: dict[tuple[str, ...], tuple[Params, QParams]]
) -> None:
    first, _ = corrected[("bias",)]
    (again, _), (other, _) = (run(tiny, specs, "ranges", "bias", chunk=chunk) for chunk in (16, 48))
    near = []
    for name, leaf in flatten(first).items():
        np.testing.assert_array_equal(leaf, flatten(again)[name])
        near.append(np.abs(np.asarray(leaf - flatten(other)[name])).mean())
    assert max(near) < 1e-3  # rounding flips


def test_programs_serve_all_blocks() -> None:
    """Those that a walk over one layer of every block compiles; ranges are compiled the same way."""

    def compilations(depth: int) -> int:
        tiny = make_tiny(depth)
        segments = tuple(replace(s, linears=s.linears[:1]) for s in tiny.parts.segments)
        parts, plain = replace(tiny.parts, segments=segments), replace(QUANT, activation_observer="minmax")
        specs = resolve(replace(plain, weight_observer="minmax"), tiny.sites).specs
        chain = ("ranges", "bias")
        jax.clear_caches()
        with count_compilations() as found:
            calibrate(
                parts,
                specs,
                tiny.params,
                [tiny.images],
                sites=tiny.sites,
                qparams=blank_qparams(specs, 4, tiny.sites),
                chain=chain,
                chunk=12,
            )
        return len(found.seconds)

    assert compilations(2) == compilations(5) > 0


def test_token_weights_have_mean_one_and_know_what_the_head_reads(tiny: Tiny) -> None:
    chunks = tiny.images.reshape(3, 4, *tiny.images.shape[1:])
    weights = token_weights(tiny.parts, tiny.params, chunks, jax.random.key(0))
    assert set(weights) == {f"blocks/{layer}" for layer in LAYERS}
    for weight in weights.values():
        assert weight.shape == (3, 3, 4, 5)
        np.testing.assert_allclose(weight.mean(-1), 1.0, rtol=1e-5)
    # Behind the last attention nothing passes from one token to another, and the head reads the first.
    last = np.asarray(weights["blocks/mlp/fc2"])[:, -1]
    assert (last[..., 0] > 0).all()
    assert (last[..., 1:] == 0).all()


def test_what_tokens_are_weighed_by_is_switchable(tiny: Tiny) -> None:
    layers = QuantConfig("matmul", weight_bits=2, rules=(Rule("*", bits=0), *WEIGHTS))
    specs, bits = resolve(layers, tiny.sites)
    given, start = (tiny.parts, specs, tiny.params, [tiny.images]), blank_qparams(specs, bits, tiny.sites)

    def corrected_with(weighting: TokenWeighting) -> tuple[Params, QParams]:
        chain = ("ranges", replace(BIAS, walk=WalkConfig(pull=0.0, token_weights=weighting)))
        found = calibrate(*given, sites=tiny.sites, qparams=start, chain=chain, chunk=6)
        return found.params, found.qparams

    found = {weighting: corrected_with(weighting) for weighting in get_args(TokenWeighting)}
    biases = {
        weighting: {layer: np.asarray(flatten(params)[f"blocks/{layer}/bias"][0]) for layer in LAYERS}
        for weighting, (params, _) in found.items()
    }
    # By hand: the mean over all tokens alike, of the first layer, whose input is not quantized.
    stats = {"blocks/norm1": jnp.zeros(3)}
    read = observe(tiny.parts, lambda _, x, __: x, tiny.params, tiny.images, stats=stats)
    x = np.asarray(read["blocks/norm1"][0]).reshape(-1, 32)
    weight, bias = (
        np.asarray(flatten(tiny.params)[f"blocks/attn/qkv/{leaf}"][0]) for leaf in ("weight", "bias")
    )
    quantized = flatten(fake_quant_weights(specs, tiny.params, found["equal"][1]))["blocks/attn/qkv/weight"][
        0
    ]
    want = bias + x.mean(0) @ (weight - np.asarray(quantized))
    np.testing.assert_allclose(biases["equal"]["attn/qkv"], want, atol=1e-4)
    # A LayerNorm follows at the end of a branch alone, so before it streams do not count.
    np.testing.assert_array_equal(biases["stream"]["attn/qkv"], biases["equal"]["attn/qkv"])
    assert np.abs(biases["stream"]["attn/proj"] - biases["equal"]["attn/proj"]).max() > 1e-4
    assert np.abs(biases["fisher"]["attn/qkv"] - biases["equal"]["attn/qkv"]).max() > 1e-4


def test_networks_without_named_layers_are_refused(tiny: Tiny, specs: Specs) -> None:
    bare = replace(tiny.parts, segments=tuple(replace(s, linears=()) for s in tiny.parts.segments))
    with pytest.raises(UserError, match=r"'gptq' corrects .* this network names none"):
        calibrate(
            bare, specs, tiny.params, [tiny.images], sites=tiny.sites, qparams={}, chain=("ranges", "gptq")
        )
