from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evolq_jax.errors import UserError
from evolq_jax.gradient.config import BaselineConfig
from evolq_jax.gradient.descend import descend
from evolq_jax.gradient.loss import Data, Problem, decode, encode, spsa, straight_through_loss
from evolq_jax.gradient.records import Descent, Evaluation
from evolq_jax.objective.objective import Teacher, make_objective
from evolq_jax.quant.observers import OBSERVERS
from evolq_jax.search.config import SearchConfig
from tests.search.setting import BATCH, Setting, fitness_loop

SITES = ("blocks/attn/qkv/weight", "blocks/mlp/fc2/weight", "blocks/norm1")
SEARCH = SearchConfig(fitness="info_nce", batch_size=BATCH, holdout=0.0)
BASELINE = BaselineConfig(learning_rate=0.02, evaluate_every=2)


def problem_of(setting: Setting, baseline: BaselineConfig = BASELINE, fitness: Any = "info_nce") -> Problem:
    objective = make_objective(fitness, batch_size=BATCH)
    return Problem(setting.tiny.parts, setting.specs, SITES, objective, 12, baseline)


def data_of(setting: Setting) -> Data:
    return Data(setting.tiny.params, setting.qparams, setting.tokens, Teacher(setting.teacher))


def run(
    setting: Setting, baseline: BaselineConfig, budget: int, search: SearchConfig = SEARCH, seed: int = 0
) -> tuple[Descent, list[Evaluation]]:
    seen: list[Evaluation] = []
    problem = problem_of(setting, baseline, search.fitness)
    found = descend(
        problem, search, data_of(setting), budget, jax.random.key(seed), lambda record, _: seen.append(record)
    )
    return found, seen


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"parametrization": "log_per_tensor", "learning_rate": 0.1, "minibatch": BATCH, "clip": 1.0},
        {"parametrization": "raw", "learning_rate": 0.002},
    ],
    ids=["adam", "minibatches", "raw"],
)
def test_it_finds_something_and_reports_what_the_scales_give(
    setting: Setting, changes: dict[str, Any]
) -> None:
    found, seen = run(setting, replace(BASELINE, **changes), 60 * 12)
    assert found.start_fitness == pytest.approx(setting.fitness(setting.qparams), rel=1e-3)
    assert found.fitness == pytest.approx(setting.fitness(found.qparams), rel=1e-3)
    assert found.fitness < 0.998 * found.start_fitness  # beyond rounding
    assert found.fitness == min(record.fitness for record in seen) == seen[-1].best_fitness
    for name, site_qparams in found.qparams.items():
        np.testing.assert_array_equal(site_qparams.zero_point, setting.qparams[name].zero_point)
        assert float(site_qparams.scale.min()) > 0
        moved = not np.array_equal(site_qparams.scale, setting.qparams[name].scale)
        assert moved == (name in SITES)


def test_the_budget_is_counted_in_forwards(setting: Setting) -> None:
    """Twelve images: 36 a step, 12 an evaluation, at the start and after steps 2, 4 and the last."""
    found, seen = run(setting, BASELINE, 12 + 5 * 36 + 3 * 12)
    assert (found.steps, found.candidate_images) == (5, 228)
    assert [record.step for record in seen] == [0, 2, 4, 5]
    assert [record.candidate_images for record in seen] == [12, 96, 180, 228]
    one_less, _ = run(setting, BASELINE, 227)
    assert one_less.steps == 4
    spsa_, _ = run(
        setting, replace(BASELINE, gradient="spsa", minibatch=BATCH, evaluate_every=100), 12 + 24 + 12
    )
    assert (spsa_.steps, spsa_.candidate_images) == (2, 48)


def test_a_line_search_pays_for_its_points(setting: Setting) -> None:
    """A gradient of twelve images, one point or more of as much, and an evaluation."""
    baseline = replace(BASELINE, optimizer="lbfgs", evaluate_every=1)
    found, seen = run(setting, baseline, 1000)
    cost = seen[1].candidate_images - seen[0].candidate_images
    assert cost >= 36 + 36 + 12
    assert (cost - 12) % 36 == 0
    assert seen[-1].candidate_images <= 1000
    assert found.fitness == min(record.fitness for record in seen)


def test_what_a_line_search_finds_beyond_the_budget_does_not_count(setting: Setting) -> None:
    baseline = replace(BASELINE, optimizer="lbfgs", evaluate_every=1)
    found, seen = run(setting, baseline, 12 + 36 + 12)
    assert found.steps == len(seen) == 1
    assert found.candidate_images > 60
    assert found.fitness == found.start_fitness


def test_the_key_draws_the_minibatches(setting: Setting) -> None:
    baseline = replace(BASELINE, minibatch=BATCH)
    first, again, other = (run(setting, baseline, 200, seed=seed)[0] for seed in (0, 0, 1))
    same = jax.tree.map(np.array_equal, first.qparams, again.qparams)
    assert jax.tree.all(same)
    assert first.fitness != other.fitness


def test_held_out_images_decide(setting: Setting) -> None:
    """Their teacher is the start itself, so that every move away from it is a loss there."""
    start = setting.logits(setting.qparams)
    teacher = jnp.concatenate([setting.teacher[:BATCH], start[BATCH:]])
    search = replace(SEARCH, fitness="mse", holdout=0.5)
    found, seen = run(setting._replace(teacher=teacher), BASELINE, 300, search)
    assert min(record.fitness for record in seen) < found.start_fitness
    assert found.fitness == found.start_fitness
    assert jax.tree.all(jax.tree.map(np.array_equal, found.qparams, setting.qparams))


def test_the_loss_is_the_search_s_fitness_and_its_gradient_points_uphill(setting: Setting) -> None:
    problem, data = problem_of(setting), data_of(setting)
    theta = encode(problem, setting.qparams)

    @jax.jit
    def value_and_grad(theta: dict[str, jax.Array]) -> tuple[jax.Array, dict[str, jax.Array]]:
        loss = lambda t: straight_through_loss(problem, data, t, jnp.arange(12))  # noqa: E731
        return jax.value_and_grad(loss)(theta)

    value, gradient = value_and_grad(theta)
    assert float(value) == pytest.approx(
        fitness_loop(setting.logits(setting.qparams), setting.teacher), rel=1e-3
    )
    norm = np.sqrt(sum(float(jnp.sum(leaf**2)) for leaf in gradient.values()))
    assert norm > 0
    step = {site: 0.3 * leaf / norm for site, leaf in gradient.items()}
    up = value_and_grad({site: theta[site] + step[site] for site in theta})[0]
    down = value_and_grad({site: theta[site] - step[site] for site in theta})[0]
    assert float(down) < float(up)


@pytest.mark.parametrize("parametrization", ["raw", "log", "log_per_tensor"])
def test_what_is_encoded_decodes_to_the_start(setting: Setting, parametrization: Any) -> None:
    problem = problem_of(setting, replace(BASELINE, parametrization=parametrization))
    theta = encode(problem, setting.qparams)
    found = decode(problem, theta, setting.qparams)
    for name, site_qparams in found.items():
        np.testing.assert_allclose(site_qparams.scale, setting.qparams[name].scale, rtol=1e-6)
    if parametrization == "log_per_tensor":
        assert theta["blocks/attn/qkv/weight"].shape == (3, 1, 1)


def test_power_of_two_factors_stay_what_they_are(setting: Setting) -> None:
    """As in the search: the channels of such a site follow one coordinate."""
    site = "blocks/norm1"
    specs = tuple(
        (name, replace(spec, per_channel=True, observer=OBSERVERS["pow2"]) if name == site else spec)
        for name, spec in setting.specs
    )
    factors = 2.0 ** (jnp.arange(32) % 4)
    before = setting.qparams[site]
    start = setting.qparams | {site: before._replace(scale=before.scale * factors)}
    problem = replace(problem_of(setting), specs=specs)
    theta = {name: leaf + 0.3 for name, leaf in encode(problem, start).items()}
    found = decode(problem, theta, start)[site].scale
    np.testing.assert_allclose(
        found / found[..., :1], start[site].scale / start[site].scale[..., :1], rtol=1e-6
    )
    assert theta[site].shape == (3, 1, 1, 1)
    assert not np.allclose(found, start[site].scale)


def test_spsa_estimates_the_gradient() -> None:
    """Of a linear function exactly along the signs, and on average the gradient itself."""
    slope = {"a": jnp.array([1.0, -2.0]), "b": jnp.array([[0.5]])}

    def loss(theta: dict[str, jax.Array]) -> jax.Array:
        return 7.0 + sum(jnp.sum(slope[site] * theta[site]) for site in slope)  # type: ignore[return-value]

    theta = jax.tree.map(jnp.zeros_like, slope)
    config = replace(BASELINE, gradient="spsa", spsa_samples=4000)
    value, gradient = jax.jit(lambda key: spsa(loss, theta, key, config))(jax.random.key(0))
    assert float(value) == pytest.approx(7.0, abs=1e-4)
    for site in slope:
        np.testing.assert_allclose(gradient[site], slope[site], atol=0.15)


@pytest.mark.parametrize("minibatch", [24, 5, 9])
def test_minibatches_are_whole_contrastive_batches(setting: Setting, minibatch: int) -> None:
    with pytest.raises(UserError, match=rf"baseline\.minibatch \({minibatch}\) must be a multiple"):
        run(setting, replace(BASELINE, minibatch=minibatch), 500)
