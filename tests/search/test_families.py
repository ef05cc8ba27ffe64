"""The cached prefix gives every family's whole forward pass, in logits and in fitness."""

from functools import cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evolq_jax.network.parts import ModelParts
from evolq_jax.network.point import Quantized, at_qparams
from evolq_jax.network.reading import float_reading
from evolq_jax.network.run import at, forward, index_in
from evolq_jax.network.walk import block_inputs, suffix_logits
from evolq_jax.objective.objective import Teacher, make_objective
from evolq_jax.quant.qparams import QParams
from evolq_jax.quant.scheme import QuantConfig
from evolq_jax.quant.spec import Specs, scope
from evolq_jax.search.population import Context
from evolq_jax.search.runner import Runner
from evolq_jax.search.space import make_space
from evolq_jax.typing import Array
from tests.families import ENTRIES, SEARCHED, Small, calibrate_small, make_small
from tests.search.setting import BATCH, quantized_forward, score, with_block

OBJECTIVE = make_objective("mse", batch_size=BATCH)
ALL = pytest.mark.parametrize("name", ENTRIES)


class Calibrated(NamedTuple):
    small: Small
    specs: Specs
    qparams: QParams
    network: Quantized
    inputs: dict[str, Array]  # of every block, by segment


@cache
def calibrated(name: str) -> Calibrated:
    """Operands at W4A8, calibrated by minmax on all twelve images, which stay in float."""
    config = QuantConfig("matmul", weight_bits=4, weight_observer="minmax", quantize_image=False)
    small, specs, qparams = calibrate_small(name, config)
    network = jax.jit(at_qparams, static_argnums=0)(specs, small.params, qparams)
    first = small.parts.segments[0]

    @jax.jit
    def inputs(network: Quantized, images: Array) -> dict[str, Array]:
        reading = network.reading(specs)
        tokens = first.enter(reading.params, reading.outside, images)
        return block_inputs(small.parts, reading, tokens, chunk=6)

    return Calibrated(small, specs, qparams, network, inputs(network, small.images))


@cache
def float_logits(name: str) -> Array:
    small = make_small(name)
    run = jax.jit(lambda params, images: forward(small.parts, float_reading(params), images))
    return run(small.params, small.images)


@partial(jax.jit, static_argnums=(0, 1, 2))
def cached_logits(
    parts: ModelParts, specs: Specs, number: int, network: Quantized, x: Array, start: Array
) -> Array:
    index = index_in(parts.segments[number], start)
    return suffix_logits(parts, network.reading(specs), x, number=number, start=index)


@ALL
def test_calibration_gives_scales_to_every_site(name: str) -> None:
    _, specs, qparams, _, _ = calibrated(name)
    assert set(qparams) == {site for site, _ in specs}
    assert all(float(site_qparams.scale.min()) > 0 for site_qparams in qparams.values())
    small = make_small(name)
    quantized = quantized_forward(small.parts, specs)(small.params, qparams, small.images)
    exact = float_logits(name)
    relative = float(jnp.linalg.norm(quantized - exact) / jnp.linalg.norm(exact))
    assert 1e-3 < relative < 0.7  # it is quantized, and still that network


@ALL
def test_the_cached_prefix_gives_the_logits_of_a_whole_pass(name: str) -> None:
    small, specs, qparams, network, inputs = calibrated(name)
    want = quantized_forward(small.parts, specs)(small.params, qparams, small.images)
    for number, segment in enumerate(small.parts.segments):
        for block in range(segment.length):
            got = cached_logits(
                small.parts, specs, number, network, inputs[segment.name][block], jnp.int32(block)
            )
            off = np.abs(np.asarray(got - want)).max(1) / np.abs(np.asarray(want)).max()
            assert np.sort(off)[-2] < 1e-3
            assert off.max() < 1e-2  # of one image at most an activation is rounded the other way


@ALL
def test_a_population_scores_as_whole_forward_passes_do(name: str) -> None:
    """Two candidates for the last block of the first and the last segment, one with coarser steps."""
    small, specs, qparams, network, inputs = calibrated(name)
    teacher = float_logits(name)
    whole, rng = quantized_forward(small.parts, specs), np.random.default_rng(0)
    for number in sorted({0, len(small.parts.segments) - 1}):
        segment = small.parts.segments[number]
        space, block = make_space(SEARCHED[name], qparams, "raw", segment.name), segment.length - 1
        start = at(scope(qparams, segment.name), block)
        candidates = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), start)
        for site in space.sites:
            factor = rng.uniform(0.9, 1.1, (2, *start[site].scale.shape)).astype(np.float32)
            factor[1] *= 2
            candidates[site] = candidates[site]._replace(scale=start[site].scale * factor)
        context = Context(network, jnp.int32(block), inputs[segment.name][block], Teacher(teacher))
        runner = Runner(small.parts, specs, image_chunk=6, population_chunk=2)
        got = score(runner, OBJECTIVE, context, candidates, number=number)
        logits = [
            whole(small.params, with_block(qparams, segment.name, block, at(candidates, i)), small.images)
            for i in range(2)
        ]
        want = [float(np.mean((np.asarray(one) - np.asarray(teacher)) ** 2)) for one in logits]
        np.testing.assert_allclose(got, want, rtol=5e-3)  # an activation may be rounded the other way
        assert abs(want[0] - want[1]) > 1e-2 * want[0]  # the candidates do differ
