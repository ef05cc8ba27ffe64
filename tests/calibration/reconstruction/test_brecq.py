import re
from collections.abc import Iterator
from dataclasses import replace
from functools import cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.timing import count_compilations
from evolq_jax.calibration.calibrate import calibrate
from evolq_jax.calibration.reconstruction.brecq import BRECQ
from evolq_jax.calibration.reconstruction.config import BrecqConfig
from evolq_jax.calibration.reconstruction.importance import importance
from evolq_jax.calibration.reconstruction.reconstruct import (
    Draw,
    UnitData,
    UnitInput,
    UnitProblem,
    begin,
    learn,
)
from evolq_jax.calibration.reconstruction.units import (
    Unit,
    Values,
    list_units,
    reads,
    run_unit,
    unit_params,
    unit_qparams,
    unit_specs,
)
from evolq_jax.errors import UserError
from evolq_jax.network.parts import ModelParts
from evolq_jax.network.reading import float_reading, quantized_reading
from evolq_jax.network.run import forward
from evolq_jax.network.sites import list_sites
from evolq_jax.objective.logits import kl
from evolq_jax.quant.learned_rounding import soft_round
from evolq_jax.quant.qparams import QParams, blank_qparams
from evolq_jax.quant.quantizers.uniform import UNIFORM
from evolq_jax.quant.scheme import QuantConfig, resolve
from evolq_jax.quant.sites import FloatSite, QuantSite, fake_quant_weights
from evolq_jax.quant.spec import QuantSpec, Specs, with_codes
from evolq_jax.trees import flatten
from evolq_jax.typing import Array, Params, SiteInfo
from tests import two_segments
from tests.families import ENTRIES, make_small
from tests.tiny import make_tiny

QUANT = QuantConfig("matmul", weight_bits=3, activation_bits=6, gelu_quantizer="uniform")
SETTINGS = BrecqConfig(steps=80, batch_size=8, rounding_rate=0.05, step_rate=0.01, fisher=False)
NETWORKS = ("vit", "cnn")


class Network(NamedTuple):
    parts: ModelParts
    params: Params
    images: Array  # normalised [12, size, size, 3]
    sites: dict[str, SiteInfo]


@cache
def network(name: str) -> Network:
    """A ViT, or the first stage of a CIFAR ResNet with a classifier behind it."""
    if name == "vit":
        tiny = make_tiny()
        return Network(tiny.parts, tiny.params, tiny.images, tiny.sites)
    small = make_small("small_cifar_resnet")
    parts = replace(small.parts, segments=small.parts.segments[:1])
    weight = jax.random.normal(jax.random.key(0), (16, 6)) / 4
    params = {name: small.params[name] for name in ("conv1", "layer1")}
    params |= {"linear": {"weight": weight, "bias": jnp.zeros(6)}}
    return Network(parts, params, small.images, list_sites(parts, params, small.images.shape[1:]))


def specs_of(name: str) -> Specs:
    return resolve(QUANT, network(name).sites).specs


def run(name: str, specs: Specs, *chain: str, seed: int = 0) -> tuple[Params, QParams]:
    net = network(name)
    links = [replace(BRECQ, settings=SETTINGS) if link == "brecq" else link for link in chain]
    given = net.parts, specs, net.params, [net.images]
    start = blank_qparams(specs, resolve(QUANT, net.sites).bits, net.sites)
    found = calibrate(*given, sites=net.sites, qparams=start, chain=links, chunk=6, seed=seed)
    return found.params, found.qparams


@cache
def initialised(name: str, *chain: str) -> tuple[Params, QParams]:
    return run(name, specs_of(name), *chain)


def unit_errors(name: str) -> Iterator[tuple[Unit, float, float]]:
    """Each unit's squared error at the ranges and reconstructed, on the reconstructed network's inputs."""
    net, specs = network(name), specs_of(name)
    networks = initialised(name, "ranges"), initialised(name, "ranges", "brecq")

    @partial(jax.jit, static_argnames="unit")
    def output(unit: Unit, params: Params, qparams: QParams, index: Array, x: Array) -> Array:
        local_specs, local = unit_specs(unit, specs), unit_params(unit, params, index)
        local_qparams = unit_qparams(unit, qparams, index)
        site = QuantSite(dict(local_specs), local_qparams) if qparams else FloatSite()
        local = fake_quant_weights(local_specs, local, local_qparams) if qparams else local
        return run_unit(unit, local, site, x)

    x = want = net.images
    for unit, index in list_units(net.parts):
        want = output(unit, net.params, {}, jnp.int32(index), want)
        outputs = [output(unit, *quantized, jnp.int32(index), x) for quantized in networks]
        nearest, learned = (float(((output - want) ** 2).mean()) for output in outputs)
        yield unit, nearest, learned
        x = outputs[1]


@pytest.mark.parametrize("name", NETWORKS)
def test_learned_rounding_brings_every_unit_nearer_than_rounding_to_nearest(name: str) -> None:
    errors = list(unit_errors(name))
    assert all(learned <= nearest * (1 + 1e-5) for _, nearest, learned in errors)
    blocks = [learned / nearest for unit, nearest, learned in errors if unit.kind == "block"]
    assert len(blocks) == 3
    assert max(blocks) < 1
    assert np.mean(blocks) < 0.8


@pytest.mark.parametrize("name", NETWORKS)
def test_the_whole_network_comes_nearer_to_the_float_one(name: str) -> None:
    net, specs = network(name), specs_of(name)

    @jax.jit
    def divergence(params: Params, qparams: QParams) -> Array:
        quantized = fake_quant_weights(specs, params, qparams)
        student = forward(net.parts, quantized_reading(specs, quantized, qparams), net.images)
        return kl(student, forward(net.parts, float_reading(net.params), net.images))

    nearest = divergence(*initialised(name, "ranges"))
    assert float(divergence(*initialised(name, "ranges", "brecq"))) < 0.5 * float(nearest)


@pytest.mark.parametrize("name", NETWORKS)
def test_weights_lie_on_their_grid_next_to_where_they_were_and_biases_stay(name: str) -> None:
    specs = dict(specs_of(name))
    params, qparams = initialised(name, "ranges", "brecq")
    _, start = initialised(name, "ranges")
    flipped = []
    for site, before in flatten(network(name).params).items():
        after = flatten(params)[site]
        if site not in specs:
            np.testing.assert_array_equal(after, before)
            continue
        np.testing.assert_array_equal(qparams[site].scale, start[site].scale)
        codes = UNIFORM.encode(specs[site], qparams[site], after)
        np.testing.assert_array_equal(UNIFORM.decode(specs[site], qparams[site], codes), after)
        moved = np.abs(np.asarray(codes - UNIFORM.encode(specs[site], qparams[site], before)))
        assert set(np.unique(moved)) <= {0.0, 1.0}
        flipped.append(moved.mean())
    assert 0.02 < np.mean(flipped) < 0.5


@pytest.mark.parametrize("name", NETWORKS)
def test_integers_are_kept_in_the_place_of_weights_and_are_exact(name: str) -> None:
    net, rounded = network(name), specs_of(name)
    specs = with_codes(rounded, [site for site, info in net.sites.items() if info.is_weight])
    on_grid, qparams = initialised(name, "ranges", "brecq")
    params, same = run(name, specs, "ranges", "brecq")
    larger = {site: q._replace(scale=1.37 * q.scale) for site, q in qparams.items()}
    back, moved = (flatten(fake_quant_weights(specs, params, s)) for s in (qparams, larger))
    weights = [(site, spec) for site, spec in specs if spec.codes]
    assert [site for site, _ in weights] == [site for site, _ in specs if site.endswith("weight")]
    for site, spec in weights:
        codes, wanted = flatten(params)[site], flatten(on_grid)[site]
        np.testing.assert_array_equal(same[site].scale, qparams[site].scale)
        assert set(np.unique(codes)) <= set(range(2 ** int(same[site].bits.max())))
        np.testing.assert_array_equal(back[site], wanted)
        # A scale takes the grid along; rounding anew would flip integers.
        np.testing.assert_allclose(moved[site], 1.37 * wanted, rtol=1e-6, atol=1e-9)
        anew = UNIFORM.encode(spec, larger[site], wanted)
        assert not np.array_equal(anew, codes)


def test_steps_of_activations_are_learned_by_one_factor_a_site() -> None:
    (_, start), (_, qparams) = initialised("vit", "ranges"), initialised("vit", "ranges", "brecq")
    specs = specs_of("vit")
    for site, spec in specs:
        ratio = np.asarray(qparams[site].scale / start[site].scale)
        np.testing.assert_array_equal(qparams[site].zero_point, start[site].zero_point)
        if site.endswith("weight"):
            np.testing.assert_array_equal(ratio, 1.0)
            continue
        inner = ratio.reshape(3, -1) if site.startswith("blocks/") else ratio.reshape(1, -1)
        np.testing.assert_allclose(inner, inner[:, :1] * np.ones_like(inner), rtol=1e-6)
        if spec.per_channel:  # powers of two between channels
            shifts = np.log2(np.asarray(qparams[site].scale).reshape(len(inner), -1))
            np.testing.assert_allclose((shifts - shifts[:, :1]) % 1.0 % (1 - 1e-5), 0.0, atol=1e-5)
    moved = [site for site, _ in specs if not np.array_equal(qparams[site].scale, start[site].scale)]
    assert {"blocks/norm1", "blocks/mlp/gelu"} <= set(moved)


def test_the_seed_decides() -> None:
    def weights(seed: int) -> dict[str, Array]:
        return flatten(run("vit", specs_of("vit"), "ranges", "brecq", seed=seed)[0])

    first, again, other = flatten(initialised("vit", "ranges", "brecq")[0]), weights(0), weights(1)
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert any(not np.array_equal(first[name], other[name]) for name in first)


def test_one_program_serves_all_blocks() -> None:
    def compilations(depth: int) -> int:
        first, second = two_segments.PARTS.segments
        parts = replace(two_segments.PARTS, segments=(first, replace(second, length=depth)))
        params = two_segments.make_params()
        params["b"]["weight"] = jax.random.normal(jax.random.key(0), (depth, 4, 4))
        images, sites = two_segments.make_inputs(12), list_sites(parts, params, (two_segments.WIDTH_A,))
        brecq = replace(BRECQ, settings=replace(SETTINGS, steps=2, fisher=True))
        specs = tuple((site, QuantSpec(per_channel=info.is_weight)) for site, info in sites.items())
        jax.clear_caches()
        with count_compilations() as found:
            chain = ("ranges", brecq)
            given, start = (parts, specs, params, [images]), blank_qparams(specs, 3, sites)
            changed = calibrate(*given, sites=sites, qparams=start, chain=chain, chunk=12).params
        assert not np.array_equal(changed["b"]["weight"], params["b"]["weight"])
        return len(found.seconds)

    assert compilations(5) == compilations(7) > 0


def test_the_regulariser_decides_every_rounding() -> None:
    net, (_, qparams) = network("vit"), initialised("vit", "ranges")
    unit = Unit(net.parts, "head")
    values = Values(unit_params(unit, net.params, 0), unit_qparams(unit, qparams, 0))
    x = jax.random.normal(jax.random.key(0), (12, 5, 32))
    want = run_unit(unit, values.params, FloatSite(), x)
    data = UnitData(jnp.int32(0), values, UnitInput(x, x), want, None, jnp.float32(0.1))
    specs = unit_specs(unit, specs_of("vit"))

    def undecided(regulariser: float) -> float:
        settings = replace(SETTINGS, steps=200, rounding_rate=0.05, regulariser=regulariser)
        problem = UnitProblem(unit, specs, ("head/weight",), (), (), 12, settings)
        learned = jax.jit(begin, static_argnames="problem")(problem, values)
        for number in range(settings.steps):
            draw = Draw(jnp.arange(12), jnp.int32(number), jax.random.key(1))
            learned = learn(problem, data, learned, draw)
        h = np.concatenate([np.ravel(soft_round(v)) for v in learned.theta.rounding.values()])
        return float(((h > 0.01) & (h < 0.99)).mean())

    assert undecided(0.0) > 0.1
    assert undecided(100.0) < 0.02


@pytest.mark.parametrize("name", ["tiny", *ENTRIES])
def test_units_read_every_weight_and_site_of_every_family(name: str) -> None:
    net = make_tiny() if name == "tiny" else make_small(name)
    x, weights, sites = jax.ShapeDtypeStruct(net.images.shape, net.images.dtype), list[str](), list[str]()
    for unit, index in list_units(net.parts):
        found = reads(unit, net.params, x)
        prefix = net.parts.segments[unit.segment].name + "/" if unit.kind == "block" else ""
        if not index:  # a segment's blocks are one unit
            weights += [prefix + name for name in found.params]
            sites += [prefix + name for name in found.sites]
        local = jax.eval_shape(lambda p, u=unit: unit_params(u, p, 0), net.params)
        x = jax.eval_shape(lambda p, x, u=unit: run_unit(u, p, FloatSite(), x), local, x)
    assert sorted(weights) == sorted(flatten(net.params))
    assert sorted(sites) == sorted(name for name, info in net.sites.items() if not info.is_weight)


@pytest.mark.parametrize("name", NETWORKS)
def test_importance_is_the_squared_gradient_with_mean_one(name: str) -> None:
    net, key = network(name), jax.random.key(2)
    chunks = net.images.reshape(3, 4, *net.images.shape[1:])
    found, units = importance(net.parts, net.params, chunks, key), list_units(net.parts)
    keys = jax.random.split(key, (3, 4)).reshape(12)

    @jax.jit
    def gradients(params: Params, images: Array) -> list[Array]:
        """By adding something everywhere, all images at once."""

        def projected(added: list[Array]) -> Array:
            x = images
            for (unit, index), extra in zip(units, added, strict=True):
                local = unit_params(unit, params, index)
                x = run_unit(unit, local, FloatSite(), x) + extra
            log_p = jax.nn.log_softmax(x)
            v = jax.vmap(lambda key: jax.random.normal(key, log_p.shape[1:]))(keys)
            return (v * jax.lax.stop_gradient(jnp.exp(log_p / 2)) * log_p).sum()

        return jax.grad(projected)([jnp.zeros(weight.shape) for weight in found])

    for weight, gradient in zip(found[:-1], gradients(net.params, net.images), strict=False):
        want = gradient**2 / (gradient**2).mean(tuple(range(1, gradient.ndim)), keepdims=True)
        np.testing.assert_allclose(weight, want, rtol=2e-2, atol=1e-3)
    np.testing.assert_array_equal(found[-1], 1.0)


def test_without_quantizers_nothing_changes() -> None:
    net = network("vit")
    params, qparams = run("vit", (), "ranges", "brecq")
    assert qparams == {}
    assert all(np.array_equal(leaf, flatten(net.params)[name]) for name, leaf in flatten(params).items())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("steps", 0),
        ("batch_size", 0),
        ("rounding_rate", 0.0),
        ("step_rate", -1.0),
        ("warmup", 1.0),
        ("drop", 1.0),
    ],
)
def test_settings_that_mean_nothing_are_refused(field: str, value: float) -> None:
    with pytest.raises(UserError, match=re.escape(f"calibration.brecq.{field} must")):
        replace(SETTINGS, **{field: value})
