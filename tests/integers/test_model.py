"""An integer model has the fake-quantized weights bit for bit, and rounds activations as runtimes do."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evolq_jax.errors import UserError
from evolq_jax.integers.build import integer_model
from evolq_jax.integers.model import IntegerModel
from evolq_jax.integers.rounding import RUNTIME_UNIFORM
from evolq_jax.network.network import Network
from evolq_jax.quant.qparams import SiteQParams, blank_qparams
from evolq_jax.quant.quantizers.uniform import UNIFORM
from evolq_jax.quant.scheme import QuantConfig, Rule, resolve
from evolq_jax.quant.sites import fake_quant_weights
from evolq_jax.quant.spec import QuantSpec
from evolq_jax.quantized.calibrate import calibrate
from evolq_jax.quantized.network import QuantizedNetwork
from evolq_jax.trees import flatten
from evolq_jax.typing import Preprocessing
from tests.families import make_small
from tests.tiny import Tiny


@pytest.mark.parametrize("kind", ["deployed", "mixed"])
def test_codes_decode_to_the_fake_quantized_weights_bit_for_bit(
    kind: str, request: pytest.FixtureRequest
) -> None:
    quantized: QuantizedNetwork = request.getfixturevalue(kind)
    wanted = flatten(fake_quant_weights(quantized.specs, quantized.params, quantized.qparams))
    weights = integer_model(quantized).weights
    assert set(weights) == {name for name, info in quantized.network.sites.items() if info.is_weight}
    for name, weight in weights.items():
        value = (weight.codes.astype(np.float32) - weight.zero_point.astype(np.float32)) * weight.scale
        np.testing.assert_array_equal(value, wanted[name])
        bits = (
            weight.bits.reshape(-1, *[1] * (weight.codes.ndim - 1)) if len(weight.bits) > 1 else weight.bits
        )
        low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if weight.signed else (0 * bits, 2**bits - 1)
        assert (weight.codes >= low).all()
        assert (weight.codes <= high).all()


@pytest.mark.parametrize("kind", ["deployed", "mixed"])
def test_logits_are_those_of_fake_quantization_but_for_single_steps(
    kind: str, request: pytest.FixtureRequest, tiny: Tiny
) -> None:
    quantized: QuantizedNetwork = request.getfixturevalue(kind)
    found, wanted = (np.asarray(each(tiny.pixels)) for each in (integer_model(quantized), quantized))
    assert np.abs(found - wanted).mean() < 0.05 * wanted.std()


def test_a_runtime_rounds_before_it_adds_the_zero_point() -> None:
    spec, one = QuantSpec(), jnp.ones(1)
    numbers = SiteQParams(one, 3 * one, 8 * one)
    x = jnp.array([0.5, 1.5, 2.5, -0.5, 300.0, -9.0])
    np.testing.assert_array_equal(RUNTIME_UNIFORM.encode(spec, numbers, x), [3, 5, 5, 3, 255, 0])
    np.testing.assert_array_equal(UNIFORM.encode(spec, numbers, x), [4, 4, 6, 2, 255, 0])


def test_it_says_what_is_quantized_and_what_is_not(model: IntegerModel) -> None:
    sites = model.activations
    assert set(sites) | set(model.float_sites) == {n for n, i in model.sites.items() if not i.is_weight}
    assert {site.kind for site in sites.values()} == {"uniform"}
    assert "blocks/residual_in" in model.float_sites
    assert {"pos_embed", "blocks/norm1/bias", "head/bias"} <= set(model.float_params)
    assert model.weights["blocks/attn/qkv/weight"].codes.dtype == np.int8


def test_a_network_of_convolutions_says_so_too() -> None:
    small, quant = make_small("small_cifar_resnet"), QuantConfig("deploy")
    specs, bits = resolve(quant, small.sites)
    network = Network(small.parts, small.params, Preprocessing(size=8, resize=None))
    qparams = blank_qparams(specs, bits, small.sites)
    model = integer_model(QuantizedNetwork(network, small.params, qparams, specs))
    assert model.sites == small.sites
    assert "image" in model.float_sites


def test_it_is_a_pytree_and_a_pure_function(model: IntegerModel, tiny: Tiny) -> None:
    twice = jax.tree.map(lambda leaf: 2 * leaf, model.qparams["head/weight"].scale)
    changed = {**model.qparams, "head/weight": model.qparams["head/weight"]._replace(scale=twice)}
    logits = jax.jit(model.apply)(model.params, changed, tiny.pixels) - model.params["head"]["bias"]
    wanted = 2 * (model(tiny.pixels) - model.params["head"]["bias"])
    np.testing.assert_allclose(logits, wanted, atol=1e-4)


@pytest.mark.parametrize(
    ("quant", "message"),
    [
        (QuantConfig("matmul", bias_correction=True), "bias correction, so it lies on no grid"),
    ],
)
def test_what_is_no_integer_is_refused(
    network: Network, tiny: Tiny, quant: QuantConfig, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        integer_model(calibrate(network, tiny.pixels, quant, chain=("ranges",)))


def test_a_weight_without_whole_zero_points_is_refused(mixed: QuantizedNetwork) -> None:
    numbers = mixed.qparams["head/weight"]
    broken = numbers._replace(zero_point=numbers.zero_point + 0.25)
    with pytest.raises(UserError, match="'head/weight' has no whole zero points"):
        integer_model(replace(mixed, qparams={**mixed.qparams, "head/weight": broken}))


def test_a_quantizer_of_your_own_is_refused(network: Network, tiny: Tiny) -> None:
    own = replace(UNIFORM, name="mine")
    quant = QuantConfig("matmul", rules=(Rule("norm", quantizer=own),))
    with pytest.raises(UserError, match="'norm' has a quantizer of your own"):
        integer_model(calibrate(network, tiny.pixels, quant, chain=("ranges",)))
