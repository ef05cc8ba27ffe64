from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evolq_jax.network.chunks import largest_divisor
from evolq_jax.network.parts import CORRECTION
from evolq_jax.network.reading import Reading, float_reading
from evolq_jax.network.run import at, forward, normalize, run_blocks, run_to_head, scan_blocks
from evolq_jax.network.sites import is_stacked, list_sites, observe
from evolq_jax.quant.qparams import SiteQParams
from evolq_jax.quant.sites import FloatSite, float_sites, quant_sites
from evolq_jax.quant.spec import QuantSpec
from evolq_jax.typing import Array, Params, Preprocessing
from tests.numbers import numbers
from tests.tiny import Tiny, make_tiny
from tests.two_segments import PARTS, WITH_DOWN, make_inputs, make_params, params_with_down

SPECS = (("blocks/attn/qkv", QuantSpec()), ("blocks/mlp/gelu", QuantSpec()), ("head", QuantSpec()))


def some_qparams(depth: int) -> dict[str, SiteQParams]:
    """Different in every block, so that a wrong index shows."""
    steps = jnp.linspace(0.2, 0.6, depth).reshape(depth, 1, 1, 1)
    return {
        "blocks/attn/qkv": numbers(steps, 8, 4, stacked=True),
        "blocks/mlp/gelu": numbers(2 * steps, 1, 3, stacked=True),
        "head": numbers(jnp.full((1, 1), 0.4), 8, 4),
    }


def block_by_block(tiny: Tiny, quantized: bool) -> Iterator[Array]:
    """Every block's input, then the logits: a plain loop over the stacked parameters."""
    parts, qparams = tiny.parts, some_qparams(tiny.config.depth) if quantized else {}
    make_site = quant_sites(SPECS) if quantized else float_sites
    outer = make_site("", qparams)
    x = parts.segments[0].enter(tiny.params, outer, tiny.images)
    for i in range(tiny.config.depth):
        yield x
        params = jax.tree.map(lambda leaf, i=i: leaf[i], tiny.params["blocks"])
        local = {k.removeprefix("blocks/"): at(v, i) for k, v in qparams.items() if k.startswith("blocks/")}
        x = parts.segments[0].block(params, make_site("blocks", local), x)
    yield x
    yield parts.head(tiny.params, outer, x)


@pytest.mark.parametrize("quantized", [False, True])
def test_forward_scan_and_run_blocks_are_the_plain_loop(tiny: Tiny, quantized: bool) -> None:
    *inputs, logits = block_by_block(tiny, quantized)
    parts, depth = tiny.parts, tiny.config.depth
    segment, qparams = parts.segments[0], some_qparams(depth) if quantized else {}
    make_site = quant_sites(SPECS) if quantized else float_sites

    got = jax.jit(lambda p, s, x: forward(parts, Reading(make_site, p, s), x))(
        tiny.params, qparams, tiny.images
    )
    assert got.shape == (12, 10)
    np.testing.assert_allclose(got, logits, atol=1e-4)

    out, seen = scan_blocks(segment, Reading(make_site, tiny.params, qparams), inputs[0])
    np.testing.assert_allclose(out, inputs[-1], atol=1e-4)
    np.testing.assert_allclose(seen, jnp.stack(inputs[:-1]), atol=1e-4)

    @jax.jit
    def run(params: Params, qparams: dict[str, SiteQParams], x: Array, start: Array, stop: Array) -> Array:
        return run_blocks(segment, Reading(make_site, params, qparams), x, start=start, stop=stop)

    for start, stop in [(0, depth), (0, 1), (1, depth), (1, 2), (2, 2)]:
        part = run(tiny.params, qparams, inputs[start], jnp.int32(start), jnp.int32(stop))
        np.testing.assert_allclose(part, inputs[stop], atol=1e-4)
    assert run._cache_size() == 1  # type: ignore[attr-defined]  # one program for all bounds


def test_observe_gives_every_site_of_every_block(tiny: Tiny) -> None:
    *inputs, logits = block_by_block(tiny, quantized=False)
    stats = {
        "blocks/residual_in": jnp.arange(3.0),
        "blocks/norm1": jnp.zeros(3),
        "head": jnp.float32(10.0),
        "residual_out": jnp.float32(0.0),
    }
    seen: set[str] = set()

    def observe_fn(name: str, x: Array, extra: Array) -> tuple[Array, Array]:
        seen.add(name)
        return x, extra + x.mean()

    records = observe(tiny.parts, observe_fn, tiny.params, tiny.images, stats=stats)
    assert set(records) == seen == set(stats)
    for block in range(3):
        x, plus_mean = (leaf[block] for leaf in records["blocks/residual_in"])
        np.testing.assert_allclose(x, inputs[block], atol=1e-4)
        np.testing.assert_allclose(plus_mean, block + inputs[block].mean(), atol=1e-4)
    np.testing.assert_allclose(records["residual_out"][0], inputs[-1], atol=1e-4)
    np.testing.assert_allclose(records["head"][1], 10 + logits.mean(), atol=1e-4)


def test_sites_are_listed_in_the_order_of_the_forward_pass(tiny: Tiny) -> None:
    sites = tiny.sites
    block = [
        "residual_in", "norm1", "attn/qkv", "attn/q", "attn/k", "attn/v", "attn/logits", "attn/softmax",
        "attn/context", "attn/proj", "residual_mid", "norm2", "mlp/fc1", "mlp/gelu", "mlp/fc2",
    ]  # fmt: skip
    weights = ["attn/qkv/weight", "attn/proj/weight", "mlp/fc1/weight", "mlp/fc2/weight"]
    inside = [name.removeprefix("blocks/") for name in sites if name.startswith("blocks/")]
    assert [name for name in inside if not name.endswith("weight")] == block
    assert sorted(inside[len(block) :]) == sorted(weights)
    outside = [name for name in sites if not is_stacked(tiny.parts, name)]
    order = ["image", "patch_embed/proj", "tokens", "pos_embed", "residual_out", "norm", "head"]
    assert outside == [*order, "patch_embed/proj/weight", "head/weight"]
    assert sites["image"] == ((1, 16, 16, 3), None, False, {"operands", "edge_inputs"})
    assert sites["blocks/attn/logits"] == ((1, 2, 5, 5), 3, False, {"per_tensor"})
    assert sites["blocks/attn/softmax"] == ((1, 2, 5, 5), 3, False, {"operands", "softmax", "per_tensor"})
    assert sites["norm"] == ((1, 1, 32), None, False, {"operands", "layer_norm", "edge_inputs"})
    assert sites["blocks/attn/qkv/weight"] == ((32, 96), 3, True, set())
    assert sites["patch_embed/proj/weight"] == ((8, 8, 3, 32), None, True, {"edge_weights"})
    batch = list_sites(tiny.parts, tiny.params, (16, 16, 3), 7)
    assert batch["blocks/mlp/gelu"].shape == (7, 5, 64)
    assert batch["pos_embed"].shape == (1, 5, 32)


def test_segments_follow_each_other() -> None:
    params, x = make_params(), make_inputs(5)
    want = np.asarray(x)
    for w in np.asarray(params["a"]["weight"]):
        want = want + np.tanh(want @ w)
    want = middle = want @ np.asarray(params["down"])
    for w in np.asarray(params["b"]["weight"]):
        want = want + np.tanh(want @ w)
    np.testing.assert_allclose(forward(PARTS, float_reading(params), x), want, atol=1e-5)
    sites = list_sites(PARTS, params, (6,))
    assert list(sites) == ["a/h", "a/weight", "b/h", "b/weight", "image", "down", "head"]
    assert (sites["a/weight"].depth, sites["b/weight"].depth) == (2, 3)
    records = observe(PARTS, lambda name, x, _: x, params, x, stats=dict.fromkeys(["down", "b/h"]))
    np.testing.assert_allclose(records["down"], middle, atol=1e-5)
    assert records["b/h"].shape == (3, 5, 4)

    params = params_with_down()
    np.testing.assert_allclose(forward(WITH_DOWN, float_reading(params), x), want, atol=1e-5)
    sites = list_sites(WITH_DOWN, params, (6,))
    assert list(sites) == ["a/h", "a/weight", "down/out", "down/weight", "b/h", "b/weight", "image", "head"]
    assert (sites["down/weight"].depth, sites["down/weight"].shape) == (1, (6, 4))
    records = observe(WITH_DOWN, lambda name, x, _: x, params, x, stats=dict.fromkeys(["down/out"]))
    np.testing.assert_allclose(records["down/out"], middle[None], atol=1e-5)


def test_forward_has_gradients_and_calls_sites_in_their_scope(tiny: Tiny) -> None:
    called: set[tuple[str, str]] = set()

    class Naming(FloatSite):
        def __init__(self, segment: str) -> None:
            self.segment = segment

        def __call__(self, name: str, x: Array) -> Array:
            called.add((self.segment, name))
            return x

    def loss(params: Params) -> Array:
        return forward(tiny.parts, Reading(lambda segment, _: Naming(segment), params, {}), tiny.images).sum()

    gradient = jax.jit(jax.grad(loss))(tiny.params)
    assert all(float(jnp.abs(leaf).max()) > 0 for leaf in jax.tree.leaves(gradient))
    assert {segment for segment, _ in called} == {"", "blocks"}
    assert ("blocks", "attn/logits") in called
    assert ("", "head") in called


def test_pixels_are_normalised_per_channel() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 3, 3), dtype=np.uint8)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    got = normalize(Preprocessing(mean=mean, std=std), jnp.asarray(pixels))
    np.testing.assert_allclose(got, (pixels / 255 - mean) / std, atol=1e-5)
    assert got.dtype == jnp.float32


@pytest.mark.parametrize(
    ("total", "at_most", "want"), [(100, 8, 5), (12, 5, 4), (7, 6, 1), (6, 99, 6), (6, 0, 1)]
)
def test_largest_divisor(total: int, at_most: int, want: int) -> None:
    assert largest_divisor(total, at_most) == want


@pytest.mark.parametrize("correction", [False, True])
def test_the_last_block_gives_the_head_what_it_reads_and_no_more(correction: bool) -> None:
    """From every block on, with bounds that are known and with traced ones."""
    tiny = make_tiny(3)
    segment, params = tiny.parts.segments[0], tiny.params
    if correction:
        added = {"weight": jnp.ones((3, 32, 32)) / 32, "bias": jnp.ones((3, 32))}
        params = params | {"blocks": params["blocks"] | {CORRECTION: added}}
    reading = float_reading(params)
    x = segment.enter(params, reading.outside, tiny.images)

    @jax.jit
    def traced(x: Array, start: Array) -> Array:
        return run_to_head(segment, reading, x, start=start)

    for start in range(segment.length + 1):
        want = run_blocks(segment, reading, x, start=start, stop=segment.length)[:, :1]
        known = run_to_head(segment, reading, x, start=start)
        assert known.shape == want.shape
        np.testing.assert_allclose(known, want, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(traced(x, jnp.int32(start)), want, rtol=1e-4, atol=1e-4)
