"""Corrections of layers in all families: convolutions as linear layers, windows, groups."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evolq_jax.calibration import patches
from evolq_jax.calibration.calibrate import calibrate
from evolq_jax.calibration.layer import Layer, Moments, moments_of
from evolq_jax.calibration.layerwise import corrected
from evolq_jax.calibration.link import LayerLink
from evolq_jax.calibration.links.bias import BIAS
from evolq_jax.calibration.links.gptq import GPTQ
from evolq_jax.calibration.links.own_output import OWN_OUTPUT
from evolq_jax.calibration.links.ridge import RIDGE, RidgeConfig
from evolq_jax.models.layers import conv
from evolq_jax.network.parts import ModelParts
from evolq_jax.network.reading import float_reading, quantized_reading
from evolq_jax.network.run import at, forward
from evolq_jax.objective.logits import mse
from evolq_jax.quant.observers import OBSERVERS
from evolq_jax.quant.observers.of_weight import weight_qparams
from evolq_jax.quant.qparams import QParams, SiteQParams, blank_qparams
from evolq_jax.quant.quantizers.base import fake_quant
from evolq_jax.quant.scheme import QuantConfig, resolve
from evolq_jax.quant.sites import FloatSite, RecordSite, fake_quant_weights
from evolq_jax.quant.spec import QuantSpec, Specs
from evolq_jax.trees import flatten
from evolq_jax.typing import Array, Params
from tests.calibration.convolutions import KERNELS, images, kernel
from tests.families import Small, make_small
from tests.numbers import width

SPEC = QuantSpec(per_channel=True, observer=OBSERVERS["omse"])
# The layers of the first segment that names some: shifted windows, split outputs, convolutions, groups.
LAYERS = {
    "small_swin": "shifted/attn",
    "small_levit": "attn",
    "small_cifar_resnet": "conv",
    "small_mobilenet": "conv_dw",
}
WEAK_RIDGE = replace(RIDGE, settings=RidgeConfig(0.1))


def layer_problem(size: int, groups: int) -> tuple[Layer, Moments, Array, Array]:
    """A convolution whose input has lost something: layer, moments, input, output wanted."""
    (weight, bias), exact = kernel(size, groups), images()
    x = exact + 0.3 * jnp.asarray(np.random.default_rng(2).standard_normal(exact.shape), jnp.float32)
    wanted = conv({"weight": weight, "bias": bias}, exact).reshape(-1, 16)
    moments = moments_of(jnp.ones((len(wanted), 1)), patches.tokens(x, weight), wanted)
    return Layer(weight, bias, weight_qparams(SPEC, width(3, 4), weight)), moments, x, wanted


@pytest.mark.parametrize(("size", "groups"), KERNELS)
def test_every_link_lowers_the_error_of_a_convolution(size: int, groups: int) -> None:
    chains: tuple[tuple[LayerLink, ...], ...] = ((BIAS,), (WEAK_RIDGE,), (GPTQ, BIAS), (OWN_OUTPUT,))

    @jax.jit
    def errors() -> list[Array]:
        layer, moments, x, wanted = layer_problem(size, groups)

        def error(layer: Layer) -> Array:
            assert layer.site_qparams is not None
            weight = fake_quant(SPEC, layer.site_qparams, layer.weight)
            return mse(conv({"weight": weight, "bias": layer.bias}, x).reshape(-1, 16), wanted)

        return [
            error(layer),
            *(error(corrected(links, SPEC, moments, layer)) for links in chains),
        ]

    plain, *found = map(float, errors())
    assert max(found) < plain * (1 - 1e-4)


def test_groups_are_corrected_each_as_if_alone() -> None:
    layer, moments, _, _ = jax.jit(layer_problem, static_argnums=(0, 1))(3, 2)
    change = jax.jit(partial(corrected, (WEAK_RIDGE, GPTQ, BIAS), SPEC))
    found = change(moments, layer)
    one = slice(8, None)  # the second group's outputs
    assert layer.site_qparams is not None
    scale, zero_point, bits = layer.site_qparams
    own = SiteQParams(scale[..., one], zero_point[..., one], bits)
    alone = Layer(layer.weight[..., one], layer.bias[one], own)
    want = change(jax.tree.map(lambda leaf: leaf[1], moments), alone)
    np.testing.assert_allclose(found.weight[..., one], want.weight, atol=1e-4)
    np.testing.assert_allclose(found.bias[one], want.bias, atol=1e-4)


def test_groups_that_share_a_range_keep_it() -> None:
    layer, moments, _, _ = jax.jit(layer_problem, static_argnums=(0, 1))(3, 2)
    spec = QuantSpec()
    before = layer._replace(site_qparams=weight_qparams(spec, width(3, 4), layer.weight))
    after = jax.jit(partial(corrected, (OWN_OUTPUT, WEAK_RIDGE, GPTQ, BIAS), spec))(moments, before)
    np.testing.assert_array_equal(after.weight, before.weight)
    jax.tree.map(np.testing.assert_array_equal, after.site_qparams, before.site_qparams)
    assert not np.array_equal(after.bias, before.bias)


def first_segment(name: str) -> Small:
    """The network up to the end of the first segment with layers to correct; only some, to compile less."""
    small = make_small(name)
    number = next(i for i, segment in enumerate(small.parts.segments) if segment.linears)
    *before, last = small.parts.segments[: number + 1]
    kept = tuple(linear for linear in last.linears if LAYERS[name] in linear.name)
    assert kept
    segments = (*before, replace(last, linears=kept))
    parts = ModelParts(segments, lambda params, site, x: x.reshape(len(x), -1))
    return small._replace(parts=parts)


@pytest.mark.parametrize("name", LAYERS)
def test_corrections_imitate_the_float_network(name: str) -> None:
    """Nothing is corrected where nothing is quantized, and less error is left where something is."""
    small = first_segment(name)

    specs, bits = resolve(QuantConfig("matmul", weight_bits=3), small.sites)
    start = blank_qparams(specs, bits, small.sites)

    def run(specs: Specs, *chain: str) -> tuple[Params, QParams]:
        given = small.parts, specs, small.params, [small.images]
        found = calibrate(*given, sites=small.sites, qparams=start, chain=("ranges", *chain), chunk=12)
        return found.params, found.qparams

    params, _ = run((), "ridge", "bias")
    for leaf, before in zip(flatten(params).values(), flatten(small.params).values(), strict=True):
        np.testing.assert_allclose(leaf, before, atol=2e-3 * float(np.abs(before).max()))

    last = small.parts.segments[-1]
    names = {f"{last.name}/{name}" for x in last.linears for name in (f"{x.name}/weight", x.source)}
    specs = tuple(entry for entry in specs if entry[0] in names)

    @jax.jit
    def error(params: Params, qparams: QParams) -> Array:
        weights = fake_quant_weights(specs, params, qparams)
        student = forward(small.parts, quantized_reading(specs, weights, qparams), small.images)
        return mse(student, forward(small.parts, float_reading(small.params), small.images))

    assert float(error(*run(specs, "ridge", "bias"))) < 0.9 * float(error(*run(specs)))


def test_what_windows_are_added_to_is_brought_into_their_order() -> None:
    """At the end of Swin's shifted attention: the stream, rearranged, grows by what the layer gives."""
    small = make_small("small_swin")
    segment = small.parts.segments[0]
    linear = next(x for x in segment.linears if x.name == "shifted/attn/proj")
    names = frozenset({"shifted/residual_in", "shifted/residual_mid", linear.name})

    @jax.jit
    def kept(params: Params, x: Array) -> dict[str, Array]:
        site = RecordSite(FloatSite(), names)
        segment.block(at(params[segment.name], 0), site, segment.enter(params, FloatSite(), x))
        return site.kept

    found = kept(small.params, small.images)
    assert linear.arrange is not None
    grown = linear.arrange(found["shifted/residual_mid"] - found["shifted/residual_in"])
    np.testing.assert_allclose(grown, found[linear.name], atol=1e-5)
