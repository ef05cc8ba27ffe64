import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evolq_jax.network.point import at_qparams
from evolq_jax.network.reading import float_reading
from evolq_jax.network.run import at, forward, window
from evolq_jax.network.walk import block_inputs, embed, float_outputs, suffix_logits
from evolq_jax.objective.logits import kl
from evolq_jax.objective.objective import Teacher, make_objective
from evolq_jax.quant.qparams import QParams, SiteQParams
from evolq_jax.quant.sites import FloatSite, fake_quant_weights, quant_sites
from evolq_jax.quant.spec import QuantSpec, scope
from evolq_jax.search.population import Context
from evolq_jax.search.runner import Runner
from tests.numbers import numbers
from tests.search.setting import BATCH, Setting, fitness_loop, quantized_forward, score, with_block
from tests.tiny import PREPROCESSING
from tests.two_segments import WITH_DOWN, make_inputs, params_with_down

NUM_CANDIDATES = 4


def some_candidates(block_qparams: QParams, seed: int) -> QParams:
    """Scales times 0.6 to 1.4, of weights and of activations; zero points stay."""
    rng = np.random.default_rng(seed)

    def changed(site_qparams: SiteQParams) -> SiteQParams:
        shape = (NUM_CANDIDATES, *site_qparams.scale.shape)
        scale = site_qparams.scale * jnp.asarray(rng.uniform(0.6, 1.4, shape), jnp.float32)
        repeated = jax.tree.map(lambda leaf: jnp.repeat(leaf[None], NUM_CANDIDATES, 0), site_qparams)
        return repeated._replace(scale=scale)

    return {name: changed(site_qparams) for name, site_qparams in block_qparams.items()}


@pytest.mark.parametrize(("image_chunk", "population_chunk"), [(5, 1), (12, 3)])
def test_a_population_scores_as_whole_forward_passes_do(
    setting: Setting, image_chunk: int, population_chunk: int
) -> None:
    """For the first, a middle and the last block, in chunks of images and of candidates."""
    parts, specs, qparams = setting.tiny.parts, setting.specs, setting.qparams
    runner = Runner(parts, specs, image_chunk, population_chunk)
    objective = make_objective("info_nce", batch_size=BATCH)
    inputs = block_inputs(parts, setting.network.reading(specs), setting.tokens, chunk=12)["blocks"]
    for block in range(3):
        candidates = some_candidates(at(scope(qparams, "blocks"), block), block)
        context = Context(setting.network, jnp.int32(block), inputs[block], Teacher(setting.teacher))
        got = score(runner, objective, context, candidates)
        want = [
            setting.fitness(with_block(qparams, "blocks", block, at(candidates, i)))
            for i in range(NUM_CANDIDATES)
        ]
        np.testing.assert_allclose(got, want, rtol=1e-3)
        assert max(want) - min(want) > 10e-3 * max(want)  # the candidates do differ


@pytest.mark.parametrize("fitness", ["local", "kl+0.5*local"])
@pytest.mark.parametrize(("image_chunk", "population_chunk"), [(5, 1), (12, 3)])
def test_a_block_s_own_output_is_scored_against_the_float_block_s(
    setting: Setting, fitness: str, image_chunk: int, population_chunk: int
) -> None:
    """On the input that the quantized network gives to both."""
    parts, specs, qparams, block = setting.tiny.parts, setting.specs, setting.qparams, 1
    runner = Runner(parts, specs, image_chunk, population_chunk)
    make_site, segment = quant_sites(specs), setting.tiny.parts.segments[0]
    x = block_inputs(parts, setting.network.reading(specs), setting.tokens, chunk=12)["blocks"][block]
    float_block = at(setting.tiny.params["blocks"], block)
    target = float_outputs(segment, window(setting.tiny.params["blocks"], block, 1), x, chunk=5)
    np.testing.assert_allclose(target, segment.block(float_block, FloatSite(), x), rtol=1e-4, atol=1e-4)
    candidates = some_candidates(at(scope(qparams, "blocks"), block), block)
    teacher = Teacher(setting.teacher, own_output=target)
    context = Context(setting.network, jnp.int32(block), x, teacher)
    got = score(runner, make_objective(fitness, batch_size=BATCH), context, candidates)
    want = []
    for i in range(NUM_CANDIDATES):
        own, local = at(candidates, i), tuple(scope(specs, "blocks").items())
        output = segment.block(fake_quant_weights(local, float_block, own), make_site("blocks", own), x)
        error = np.asarray(output - target, np.float64)
        sizes = (np.asarray(target, np.float64) ** 2).mean(-1)
        local_error = np.mean((error**2).mean(-1) / np.maximum(sizes, 1e-3 * sizes.mean()))
        whole = kl(setting.logits(with_block(qparams, "blocks", block, own)), setting.teacher)
        want.append(local_error if fitness == "local" else float(whole) + 0.5 * local_error)
    np.testing.assert_allclose(got, want, rtol=2e-3)
    assert max(want) - min(want) > 1e-2 * max(want)


def test_the_cached_prefix_gives_the_logits_of_a_whole_pass(setting: Setting) -> None:
    parts, specs, network = setting.tiny.parts, setting.specs, setting.network
    want = setting.logits(setting.qparams)
    inputs = block_inputs(parts, network.reading(specs), setting.tokens, chunk=5)["blocks"]
    assert inputs.shape == (3, 12, 5, 32)
    np.testing.assert_array_equal(inputs[0], setting.tokens)
    suffix = jax.jit(lambda network, x, start: suffix_logits(parts, network.reading(specs), x, start=start))
    for block in range(3):
        got = suffix(network, inputs[block], jnp.int32(block))
        np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("chunk", [1, 7, 12])
def test_embedding_is_the_segments_entry_on_normalised_pixels(setting: Setting, chunk: int) -> None:
    tiny, reading = setting.tiny, setting.network.reading(setting.specs)
    got = embed(tiny.parts, reading, tiny.pixels, preprocessing=PREPROCESSING, chunk=chunk)
    want = tiny.parts.segments[0].enter(reading.params, reading.outside, tiny.images)
    np.testing.assert_allclose(got, want, atol=1e-4)


@pytest.mark.parametrize(("number", "block"), [(0, 1), (1, 0), (2, 0), (2, 2)])
def test_segments_after_the_searched_one_are_run(number: int, block: int) -> None:
    parts, params, x = WITH_DOWN, params_with_down(), make_inputs(12)

    def site_qparams(step: float, *shape: int) -> SiteQParams:
        return numbers(jnp.full(shape, step), 8, 4, stacked=True)

    qparams = {
        "a/weight": site_qparams(0.1, 2, 1, 1), "b/weight": site_qparams(0.15, 3, 1, 1),
        "a/h": site_qparams(0.15, 2, 1, 1), "b/h": site_qparams(0.13, 3, 1, 1),
        "down/weight": site_qparams(0.2, 1, 1, 1), "down/out": site_qparams(0.4, 1, 1, 1),
    }  # fmt: skip
    specs = tuple((name, QuantSpec()) for name in qparams)
    network = at_qparams(specs, params, qparams)
    teacher = forward(parts, float_reading(params), x)
    name = parts.segments[number].name
    inputs = block_inputs(parts, network.reading(specs), x, chunk=4)
    shapes = {segment: leaf.shape for segment, leaf in inputs.items()}
    assert shapes == {"a": (2, 12, 6), "down": (1, 12, 6), "b": (3, 12, 4)}
    candidates = some_candidates(at(scope(qparams, name), block), 0)
    runner, objective = Runner(parts, specs, 12, 2), make_objective("info_nce", batch_size=BATCH)
    context = Context(network, jnp.int32(block), inputs[name][block], Teacher(teacher))
    got = score(runner, objective, context, candidates, number=number)
    run = quantized_forward(parts, specs)
    want = [
        fitness_loop(run(params, with_block(qparams, name, block, at(candidates, i)), x), teacher)
        for i in range(NUM_CANDIDATES)
    ]
    np.testing.assert_allclose(got, want, rtol=1e-3)


def test_the_local_target_of_a_block_may_have_another_shape() -> None:
    params, x = params_with_down(), make_inputs(12)
    found = float_outputs(WITH_DOWN.segments[1], params["down"], x, chunk=4)
    np.testing.assert_allclose(found, x @ params["down"]["weight"][0], atol=1e-6)
