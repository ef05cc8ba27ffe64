"""The error of the features that the classifiers read, as a term of the fitness."""

from dataclasses import replace
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evolq_jax.gradient.config import BaselineConfig
from evolq_jax.gradient.driver import descend
from evolq_jax.gradient.problem import Data, make_problem
from evolq_jax.gradient.state import init
from evolq_jax.network.parts import ModelParts
from evolq_jax.network.reading import float_reading, quantized_reading
from evolq_jax.network.run import at, forward, with_features
from evolq_jax.network.walk import block_inputs
from evolq_jax.objective.logits import kl
from evolq_jax.objective.objective import Teacher, make_objective
from evolq_jax.quant.qparams import QParams, SiteQParams
from evolq_jax.quant.sites import fake_quant_weights
from evolq_jax.quant.spec import Specs, scope
from evolq_jax.search.population import Context
from evolq_jax.search.runner import Runner
from evolq_jax.search.state import Generation, SearchEnd
from evolq_jax.typing import Array, Params
from tests.search.setting import BATCH, Setting, score, searched, with_block
from tests.search.test_driver import SNES
from tests.tiny import make_tiny

SUM = "kl + 0.5*features"


@cache
def teacher_features() -> Array:
    tiny = make_tiny()
    run = partial(forward, tiny.parts, images=tiny.images)
    return jax.jit(lambda: with_features(tiny.parts, float_reading(tiny.params), run)[1])()


@partial(jax.jit, static_argnums=(0, 1))
def features_at(parts: ModelParts, specs: Specs, params: Params, qparams: QParams, images: Array) -> Array:
    reading = quantized_reading(specs, fake_quant_weights(specs, params, qparams), qparams)
    return with_features(parts, reading, partial(forward, parts, images=images))[1]


def error_of(setting: Setting, qparams: QParams) -> float:
    """By a whole forward pass: the mean over images of the relative squared error, in numpy."""
    tiny = setting.tiny
    found = np.asarray(features_at(tiny.parts, setting.specs, tiny.params, qparams, tiny.images))
    wanted = np.asarray(teacher_features())
    assert found.shape == wanted.shape == (12, 1, 32)  # the class token
    return float(np.mean([((f - w) ** 2).sum() / (w**2).sum() for f, w in zip(found, wanted, strict=True)]))


def sum_of(setting: Setting, qparams: QParams) -> float:
    return float(kl(setting.logits(qparams), setting.teacher)) + 0.5 * error_of(setting, qparams)


def search_by(setting: Setting, fitness: str) -> tuple[SearchEnd, list[Generation]]:
    subject = setting.subject._replace(teacher=Teacher(setting.teacher, teacher_features()))
    found = searched(subject, replace(SNES, fitness=fitness))
    return found.result, found.generations


def test_a_population_scores_as_whole_forward_passes_do(setting: Setting) -> None:
    tiny, qparams = setting.tiny, setting.qparams
    reading = setting.network.reading(setting.specs)
    inputs = block_inputs(tiny.parts, reading, setting.tokens, chunk=12)["blocks"]
    start = at(scope(qparams, "blocks"), 1)
    candidates = {
        name: SiteQParams(jnp.stack([q.scale, 1.2 * q.scale]), *(jnp.stack([leaf] * 2) for leaf in q[1:]))
        for name, q in start.items()
    }
    objective = make_objective(SUM, batch_size=BATCH)
    runner = Runner(tiny.parts, setting.specs, image_chunk=6, population_chunk=2)
    context = Context(setting.network, jnp.int32(1), inputs[1], Teacher(setting.teacher, teacher_features()))
    got = score(runner, objective, context, candidates)
    want = [sum_of(setting, with_block(qparams, "blocks", 1, at(candidates, i))) for i in range(2)]
    np.testing.assert_allclose(got, want, rtol=1e-3)
    assert abs(want[0] - want[1]) > 1e-2 * want[0]
    with pytest.raises(ValueError, match="needs the teacher's features"):
        score(runner, objective, context._replace(teacher=Teacher(setting.teacher)), candidates)


def test_a_search_by_features_runs_the_whole_network(setting: Setting) -> None:
    result, told = search_by(setting, "features")
    assert result.start_fitness == pytest.approx(error_of(setting, setting.qparams), rel=1e-3)
    assert result.fitness == pytest.approx(error_of(setting, result.qparams), rel=1e-3)
    assert result.fitness < 0.99 * result.start_fitness
    assert told[0].candidate_images == pytest.approx(12 + (1 + 4) * 12 / 3, abs=1e-3)


def test_a_search_by_a_sum(setting: Setting) -> None:
    result, _ = search_by(setting, SUM)
    assert result.fitness == pytest.approx(sum_of(setting, result.qparams), rel=1e-3)
    assert result.fitness < result.start_fitness


def test_a_descent_by_a_sum(setting: Setting) -> None:
    config = replace(SNES, fitness=SUM, sites=("blocks/mlp/fc2/weight",))
    baseline = BaselineConfig(learning_rate=0.02, evaluate_every=2, lsq_scaling=False)
    tiny = setting.tiny
    problem = make_problem(
        baseline, config, tiny.parts, setting.specs, sites=tiny.sites, num_images=12, budget=300
    )
    state = init(problem, setting.qparams, jax.random.key(0))
    data = Data(tiny.params, setting.qparams, setting.tokens, Teacher(setting.teacher, teacher_features()))
    found = descend(problem, data, state)
    assert found.start_fitness == pytest.approx(sum_of(setting, setting.qparams), rel=1e-3)
    assert found.fitness == pytest.approx(sum_of(setting, found.qparams), rel=5e-3)  # values next to an edge
    assert found.fitness < 0.98 * found.start_fitness
    with pytest.raises(ValueError, match="needs the teacher's features"):
        descend(problem, data._replace(teacher=Teacher(setting.teacher)), state)
