"""Products of integers: exact sums, the same ones in every carrier, and none that a carrier cannot hold."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evolq_jax.errors import UserError
from evolq_jax.integers.build import integer_model
from evolq_jax.integers.carriers import Carrier
from evolq_jax.integers.evaluation import Evaluation, Product
from evolq_jax.integers.marks import decode
from evolq_jax.integers.model import IntegerModel
from evolq_jax.integers.products import integer_products, largest_sum, list_products
from evolq_jax.models.checkpoint import load_checkpoint
from evolq_jax.network.network import Network
from evolq_jax.quant.qparams import SiteQParams, blank_qparams
from evolq_jax.quant.quantizers.log import LOG
from evolq_jax.quant.scheme import QuantConfig, resolve
from evolq_jax.quant.spec import QuantSpec
from evolq_jax.quantized.calibrate import calibrate
from evolq_jax.quantized.network import QuantizedNetwork
from evolq_jax.typing import Array
from tests.families import ENTRIES, calibrate_small, make_small
from tests.tiny import Tiny

VIT_TINY = "vit_tiny_patch16_224.augreg_in21k_ft_in1k"
CARRIERS: tuple[Carrier, ...] = get_args(Carrier)
SPECS = {"x": QuantSpec(), "y": QuantSpec(), "log": QuantSpec(quantizer=LOG)}


def numbers(*shape: int, scale: float = 0.5, zero_point: int = 3) -> SiteQParams:
    """Other zero points and scales along an axis of more than one."""
    steps = jnp.arange(np.prod(shape), dtype=jnp.float32).reshape(shape)
    return SiteQParams(scale + steps / 8, zero_point + steps, jnp.full((1,) * len(shape), 8.0))


def codes(*shape: int) -> Array:
    """uint8 over the whole range."""
    return jnp.asarray(np.random.default_rng(sum(shape)).integers(0, 256, shape), jnp.float32)


def run(
    carrier: Carrier,
    product: Callable[[Array, Array], Array],
    sites: str,
    operands: list[tuple[SiteQParams, Array]],
) -> tuple[np.ndarray, list[Product]]:
    """A product of decoded codes by integers, and what was met on the way."""
    evaluation = Evaluation(SPECS, carrier, wide=frozenset(SPECS))

    def marked(operands: list[tuple[SiteQParams, Array]]) -> Array:
        decoded = (decode(s, SPECS[s], n, c) for s, (n, c) in zip(sites.split(), operands, strict=True))
        return product(*decoded)

    return np.asarray(jax.jit(lambda given: evaluation(marked, given))(operands)), [*evaluation.found]


def exactly(
    product: Callable[[Array, Array], Array], operands: list[tuple[SiteQParams, Array]]
) -> np.ndarray:
    """The same in float64, of centred codes; scales of outputs come last."""
    with jax.enable_x64(True):
        centred = [jnp.asarray(c - n.zero_point, jnp.float64) for n, c in operands]
        sums = np.asarray(product(*centred))
    x, y = (np.asarray(n.scale) for n, _ in operands)
    return sums.astype(np.float32) * (x.reshape(-1) * y.reshape(-1))


def grouped(x: Array, kernel: Array) -> Array:
    return jax.lax.conv_general_dilated(
        x, kernel, (2, 1), [(1, 1), (0, 2)], dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=2
    )


OPERANDS = {
    "matrices": (jnp.matmul, [(numbers(1, 1), codes(5, 7)), (numbers(1, 6), codes(7, 6))]),
    "moved": (
        lambda x, y: x.reshape(2, 5, 7)[:, 1:].swapaxes(1, 2).mT @ jnp.roll(y, 3, 0).squeeze(2),
        [(numbers(1, 1), codes(10, 7)), (numbers(1, 6, 1), codes(7, 6, 1))],
    ),
    "a batch": (
        lambda x, y: jnp.einsum("bnd,bdm->bnm", x, y),
        [(numbers(1, 1, 1), codes(2, 3, 7)), (numbers(1, 1, 1, zero_point=0), codes(2, 7, 4))],
    ),
    "groups": (grouped, [(numbers(1, 1, 1, 1), codes(2, 6, 5, 4)), (numbers(1, 1, 1, 6), codes(3, 3, 2, 6))]),
}  # fmt: skip


@pytest.mark.parametrize("name", OPERANDS)
def test_sums_are_exact_in_every_carrier(name: str) -> None:
    product, operands = OPERANDS[name]
    wanted = exactly(product, operands)
    for carrier in CARRIERS:
        found, (met,) = run(carrier, product, "x y", operands)
        assert met.why_float == ""
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize(
    ("sites", "left", "why"),
    [
        ("log y", numbers(1, 1), "the quantizer of 'log' has no equal steps"),
        ("x y", numbers(1, 7), "'x' has a factor for each of the channels that are summed"),
    ],
)
def test_other_products_say_why_they_stay_float(sites: str, left: SiteQParams, why: str) -> None:
    operands = [(left, codes(5, 7)), (numbers(1, 6), codes(7, 6))]
    found, (met,) = run("int8", jnp.matmul, sites, operands)
    assert met == Product((sites.split()[0],), ("y",), 7, why)
    spec = SPECS[sites.split()[0]]
    values = spec.quantizer.decode(spec, *operands[0]), SPECS["y"].quantizer.decode(SPECS["y"], *operands[1])
    np.testing.assert_allclose(found, jnp.matmul(*values), rtol=1e-5)


def small_model(name: str, quant: QuantConfig, *, calibrated: bool) -> IntegerModel:
    small, entry = make_small(name), ENTRIES[name]
    specs, bits = resolve(quant, small.sites)
    qparams = calibrate_small(name, quant)[2] if calibrated else blank_qparams(specs, bits, small.sites)
    network = Network(small.parts, small.params, entry.preprocessing, name, entry.config)
    return integer_model(QuantizedNetwork(network, small.params, qparams, specs))


@pytest.mark.parametrize("scheme", ["deploy", "matmul"])
@pytest.mark.parametrize("name", ENTRIES)
def test_every_product_of_codes_is_found(name: str, scheme: Literal["deploy", "matmul"]) -> None:
    quant = QuantConfig(scheme, activation_observer="omse")
    products = list_products(small_model(name, quant, calibrated=False))
    (of_image,) = (product for product in products if product.why_float)
    assert of_image.left == ()
    assert of_image.why_float == "one operand is not quantized"


@pytest.mark.parametrize(
    ("name", "quant"),
    [
        ("small_levit", QuantConfig("deploy")),
        ("small_mobilenet", QuantConfig("deploy")),
        ("small_cifar_resnet", QuantConfig("matmul", activation_observer="omse", quantize_image=True)),
    ],
)
def test_all_carriers_are_equal_bit_for_bit(name: str, quant: QuantConfig) -> None:
    model, images = small_model(name, quant, calibrated=True), make_small(name).images[:4]
    int8, *others = (np.asarray(integer_products(model, carrier)(images)) for carrier in CARRIERS)
    for other in others:
        np.testing.assert_array_equal(other, int8)
    wanted = np.asarray(model(images))
    assert not np.array_equal(int8, wanted)
    assert np.abs(int8 - wanted).mean() < 0.05 * wanted.std()


def test_carriers_are_equal_with_all_optimisations(shared: Path) -> None:
    """Tests on real weights are compiled with them; here XLA may fuse in each carrier in a way of its own."""
    network = load_checkpoint(VIT_TINY, shared / f"data/weights/{VIT_TINY}.safetensors")
    pixels = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3), dtype=np.uint8)
    model = integer_model(calibrate(network, pixels, QuantConfig("deploy"), chain=("ranges",)))
    int8, *others = (np.asarray(integer_products(model, carrier)(pixels)) for carrier in CARRIERS)
    for other in others:
        np.testing.assert_array_equal(other, int8)


def test_it_is_a_pytree_and_says_what_it_multiplies(model: IntegerModel, tiny: Tiny) -> None:
    products = integer_products(model)
    np.testing.assert_array_equal(
        jax.jit(products.apply)(model.params, model.qparams, tiny.pixels), products(tiny.pixels)
    )
    listed = {product.right[-1] if product.right else "": product for product in list_products(model)}
    assert listed["blocks/mlp/fc2/weight"] == Product(
        ("blocks/mlp/gelu",), ("blocks/mlp/fc2/weight",), 64, ""
    )
    assert listed["blocks/attn/k"].left == ("blocks/attn/q",)
    weight = model.weights["blocks/mlp/fc2/weight"]
    largest = 255 * np.abs(weight.codes.astype(int)).sum(1).max()
    assert 0.5 * largest <= largest_sum(model, listed["blocks/mlp/fc2/weight"]) <= largest


def test_factors_by_channel_and_logarithms_stay_float(mixed: QuantizedNetwork) -> None:
    why = {
        product.left[-1]: product.why_float for product in list_products(integer_model(mixed)) if product.left
    }
    assert "'blocks/norm1' has a factor for each" in why["blocks/norm1"]
    assert "the quantizer of 'blocks/attn/softmax' has no equal" in why["blocks/attn/softmax"]


def test_a_carrier_that_cannot_hold_the_sums_is_refused(model: IntegerModel) -> None:
    numbers = model.qparams["norm"]
    far = replace(
        model, qparams={**model.qparams, "norm": numbers._replace(zero_point=numbers.zero_point - 2**16)}
    )
    integer_products(far, "int8")
    for carrier in ("float32", "bfloat16"):
        with pytest.raises(
            UserError, match=rf"sums of norm times head/weight can reach .*carrier {carrier} .*int8"
        ):
            integer_products(far, carrier)
    with pytest.raises(UserError, match="no carrier 'int4': take int8, float32, bfloat16"):
        integer_products(model, "int4")  # type: ignore[arg-type]
