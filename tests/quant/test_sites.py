import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evolq_jax.network.run import at
from evolq_jax.quant.integer_ops import integer_layer_norm, integer_softmax
from evolq_jax.quant.qparams import SiteQParams
from evolq_jax.quant.quantizers.log2 import LOG2
from evolq_jax.quant.sites import (
    FloatSite,
    IntegerNormSite,
    ObserveSite,
    QuantSite,
    fake_quant_weights,
    float_sites,
    integer_norm_sites,
    quant_sites,
)
from evolq_jax.quant.spec import QuantSpec, scope
from evolq_jax.trees import flatten
from evolq_jax.typing import Array
from tests.numbers import numbers
from tests.quant import reference
from tests.tiny import Tiny

WIDTH = 12
RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.standard_normal((2, 5, WIDTH)), jnp.float32)
NORM = {name: jnp.asarray(RNG.standard_normal(WIDTH), jnp.float32) for name in ("weight", "bias")}


def site_qparams(bits: int, scale: float = 1.0, zero_point: float = 0.0) -> SiteQParams:
    return numbers(jnp.full((1, 1, 1), scale), zero_point, bits)


SPECS = {
    "in": QuantSpec(),
    "out": QuantSpec(),
    "norm": QuantSpec(integer_op=True),
    "soft": QuantSpec(quantizer=LOG2, integer_op=True),
    "power": QuantSpec(quantizer=LOG2),
}
SCALES = {
    "in": site_qparams(8, 0.03, 128.0),
    "out": site_qparams(4, 0.3, 7.0),
    "norm": site_qparams(8, 0.05, 120.0),
    "soft": site_qparams(4),
    "power": site_qparams(3),
}


def test_float_site_norms_and_softmaxes_as_numpy_does() -> None:
    site = FloatSite()
    norm = site.layer_norm("norm", "in", X, NORM, eps=1e-3)
    np.testing.assert_allclose(
        norm,
        reference.layer_norm(np.asarray(X), np.asarray(NORM["weight"]), np.asarray(NORM["bias"]), 1e-3),
        atol=2e-6,
    )
    np.testing.assert_allclose(site.softmax("soft", "in", X), reference.softmax(np.asarray(X)), atol=1e-6)
    assert site("out", X) is X


def test_quant_site_quantizes_what_has_a_spec() -> None:
    site = QuantSite(SPECS, SCALES)
    assert site("unknown", X) is X
    want = reference.fake_quant(np.asarray(X), np.float32(0.3), np.float32(7), 4, False)  # type: ignore[arg-type]
    np.testing.assert_allclose(site("out", X), want, rtol=1e-6)
    soft = jax.nn.softmax(X)
    powers = [reference.log2_fake_quant(float(v), 3) for v in soft.ravel()]
    np.testing.assert_array_equal(site("power", soft).ravel(), powers)
    np.testing.assert_array_equal(site.softmax("power", "in", X).ravel(), powers)


def test_integer_operations_need_a_quantized_input() -> None:
    site = QuantSite(SPECS, SCALES)
    x = site("in", X)
    norm = site.layer_norm("norm", "in", x, NORM, eps=1e-6)
    scale_in, scale_out = SCALES["in"].scale, SCALES["norm"].scale
    unclipped = integer_layer_norm(NORM, x, scale_in, scale_out)
    np.testing.assert_array_equal(norm, site("norm", unclipped))
    np.testing.assert_array_equal(
        site.softmax("soft", "in", x),
        LOG2.decode(SPECS["soft"], SCALES["soft"], integer_softmax(x, SCALES["in"].scale)),
    )
    in_float = FloatSite().layer_norm("norm", "float", x, NORM, eps=1e-6)
    np.testing.assert_array_equal(site.layer_norm("norm", "float", x, NORM, eps=1e-6), site("norm", in_float))
    np.testing.assert_array_equal(site.softmax("soft", "float", x), site("soft", jax.nn.softmax(x)))


def test_the_released_teacher_is_float_but_for_the_norms() -> None:
    site = IntegerNormSite(SPECS, SCALES)
    assert site("out", X) is X
    norm = site.layer_norm("norm", "in", X, NORM, eps=1e-6)
    want = integer_layer_norm(NORM, X, SCALES["in"].scale, SCALES["norm"].scale)
    np.testing.assert_array_equal(norm, want)


def test_observing_collects_the_named_sites_and_changes_nothing() -> None:
    site = ObserveSite(lambda name, x: (name, x.sum()), frozenset({"a", "norm"}))
    assert site("a", X) is X
    assert site("b", X) is X
    norm = site.layer_norm("norm", "a", X, NORM, eps=1e-6)
    assert set(site.records) == {"a", "norm"}
    assert site.records["norm"][0] == "norm"
    assert site.records["norm"][1] == norm.sum()


def test_site_factories_take_the_specs_of_their_scope() -> None:
    specs = (("blocks/a", QuantSpec(signed=True)), ("head", QuantSpec()))
    assert isinstance(float_sites("blocks", {}), FloatSite)
    for factory in (quant_sites, integer_norm_sites):
        site = factory(specs)("blocks", {"a": site_qparams(2)})
        assert isinstance(site, QuantSite)
        assert dict(site.specs) == {"a": QuantSpec(signed=True)}
        assert dict(factory(specs)("", {}).specs)["head"] == QuantSpec()  # type: ignore[attr-defined]


@pytest.mark.parametrize("bias_correction", [False, True])
def test_fake_quant_weights_maps_the_tree_and_one_block_alike(tiny: Tiny, bias_correction: bool) -> None:
    spec = QuantSpec(per_channel=True, bias_correction=bias_correction)
    depth = tiny.config.depth
    specs = (("blocks/attn/qkv/weight", spec), ("head/weight", spec), ("blocks/norm1", QuantSpec()))
    rng = np.random.default_rng(1)

    def some(*shape: int, stacked: bool) -> SiteQParams:
        return numbers(rng.uniform(0.03, 0.06, shape), 8, 4, stacked=stacked)

    qparams = {
        "blocks/attn/qkv/weight": some(depth, 1, 96, stacked=True),
        "head/weight": some(1, 10, stacked=False),
    }
    whole = fake_quant_weights(specs, tiny.params, qparams)
    before, after = flatten(tiny.params), flatten(whole)
    changed = {name for name in after if after[name] is not before[name]}
    assert changed == {"blocks/attn/qkv/weight", "head/weight"}

    block_specs = tuple(scope(specs, "blocks").items())
    for block in range(depth):
        block_qparams = at(scope(qparams, "blocks"), block)
        one = fake_quant_weights(block_specs, at(tiny.params["blocks"], block), block_qparams)
        of_whole = whole["blocks"]["attn"]["qkv"]["weight"][block]
        np.testing.assert_allclose(one["attn"]["qkv"]["weight"], of_whole, rtol=1e-6, atol=1e-7)
        if not bias_correction:
            q = qparams["blocks/attn/qkv/weight"]
            want = reference.fake_quant(
                np.asarray(tiny.params["blocks"]["attn"]["qkv"]["weight"][block]),
                np.asarray(q.scale[block]),
                np.asarray(q.zero_point[block]),
                4,
                False,
            )
            np.testing.assert_allclose(one["attn"]["qkv"]["weight"], want, rtol=1e-6)


def test_reading_of_sites_is_pure_under_jit() -> None:
    @jax.jit
    def run(scale: Array, x: Array) -> Array:
        return QuantSite({"a": QuantSpec()}, {"a": numbers(scale, 0, 4)})("a", x)

    assert run(jnp.array([1.0]), jnp.array([3.2])).tolist() == [3.0]
    assert run(jnp.array([2.0]), jnp.array([3.2])).tolist() == [4.0]
