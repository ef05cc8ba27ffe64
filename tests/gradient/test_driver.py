"""A whole descent: what it finds, what it pays for, and what it says."""

import gc
import math
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evolq_jax.errors import UserError
from evolq_jax.gradient.driver import descend, run
from evolq_jax.gradient.state import Evaluation, Step, init
from tests.gradient.setting import (
    BASELINE,
    HELD_OUT,
    SEARCH,
    SITES,
    data_of,
    descended,
    listened,
    problem_of,
    same_bits,
    without_seconds,
)
from tests.search.setting import BATCH, Setting


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
    found, seen, _ = descended(setting, replace(BASELINE, **changes), 60 * 12)
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
    found, seen, _ = descended(setting, BASELINE, 12 + 5 * 36 + 3 * 12)
    assert (found.steps, found.candidate_images) == (5, 228)
    assert [record.step for record in seen] == [0, 2, 4, 5]
    assert [record.candidate_images for record in seen] == [12, 96, 180, 228]
    one_less = descended(setting, BASELINE, 227).result
    assert one_less.steps == 4
    spsa = replace(BASELINE, gradient="spsa", minibatch=BATCH, evaluate_every=100)
    found = descended(setting, spsa, 12 + 24 + 12).result
    assert (found.steps, found.candidate_images) == (2, 48)


def test_a_line_search_pays_for_its_points(setting: Setting) -> None:
    """A gradient of twelve images, one point or more of as much, and an evaluation."""
    baseline = replace(BASELINE, optimizer="lbfgs", evaluate_every=1)
    found, seen, _ = descended(setting, baseline, 1000)
    cost = seen[1].candidate_images - seen[0].candidate_images
    assert cost >= 36 + 36 + 12
    assert (cost - 12) % 36 == 0
    assert seen[-1].candidate_images <= 1000
    assert found.fitness == min(record.fitness for record in seen)


def test_what_a_line_search_finds_beyond_the_budget_does_not_count(setting: Setting) -> None:
    baseline = replace(BASELINE, optimizer="lbfgs", evaluate_every=1)
    found, seen, _ = descended(setting, baseline, 12 + 36 + 12)
    assert found.steps == len(seen) == 1
    assert found.candidate_images > 60
    assert found.fitness == found.start_fitness


def test_a_descent_into_nothing_stops(setting: Setting, caplog: pytest.LogCaptureFixture) -> None:
    """Far too large steps make scales infinite. What was found before stays."""
    baseline = replace(BASELINE, parametrization="log_per_tensor", learning_rate=1e6, optimizer="sgd")
    found, seen, _ = descended(setting, baseline, 1000)
    assert "has a fitness of nan: the descent stops here; a smaller --baseline.learn" in caplog.text
    assert math.isnan(seen[-1].fitness)
    assert found.fitness == found.start_fitness
    assert found.candidate_images < 500
    caplog.clear()
    _, seen, _ = descended(setting, replace(baseline, learning_rate=0.01), 300)  # as the line says
    assert all(math.isfinite(record.fitness) for record in seen)
    assert not caplog.text
    lost = setting._replace(teacher=setting.teacher * jnp.nan)
    with pytest.raises(UserError, match="is nan where the descent starts"):
        descended(lost, BASELINE, 100)


def test_the_key_draws_the_minibatches(setting: Setting) -> None:
    baseline = replace(BASELINE, minibatch=BATCH)
    first, again, other = (descended(setting, baseline, 200, seed=seed).result for seed in (0, 0, 1))
    same = jax.tree.map(np.array_equal, first.qparams, again.qparams)
    assert jax.tree.all(same)
    assert first.fitness != other.fitness


def test_held_out_images_decide(setting: Setting) -> None:
    """Their teacher is the start itself, so that every move away from it is a loss there."""
    start = setting.logits(setting.qparams)
    teacher = jnp.concatenate([setting.teacher[:BATCH], start[BATCH:]])
    search = replace(SEARCH, fitness="mse", holdout=0.5)
    found, seen, _ = descended(setting._replace(teacher=teacher), BASELINE, 300, search=search)
    assert min(record.fitness for record in seen) < found.start_fitness
    assert found.fitness == found.start_fitness
    assert same_bits(found.qparams, setting.qparams)


def test_the_state_is_a_tree_of_arrays_and_numbers(setting: Setting) -> None:
    """With the same places before and after a step, whatever goes over it meets no object of its own."""
    problem = problem_of(setting, replace(BASELINE, optimizer="noisy_sgd"), search=HELD_OUT)
    first = init(problem, setting.qparams, jax.random.key(0))
    *_, last = listened(problem, data_of(setting), first).states
    leaves = jax.tree.leaves(last)
    assert len(leaves) > 2 * len(setting.qparams)
    assert all(isinstance(leaf, jax.Array | int | float) for leaf in leaves)
    assert jax.tree.structure(first) == jax.tree.structure(last)
    same = jax.tree.map(lambda leaf: leaf, last)
    assert type(same) is type(last)
    assert same.number == last.steps > 0


def test_who_stops_listening_leaves_nothing_behind(setting: Setting) -> None:
    """The state, the data and the problem stay what they were, and no array of the descent is held."""
    problem, data = problem_of(setting, replace(BASELINE, minibatch=BATCH), 300), data_of(setting)
    first = init(problem, setting.qparams, jax.random.key(0))
    whole = without_seconds(listened(problem, data, first))
    wanted = jax.tree.map(np.asarray, whole.result)
    del whole
    gc.collect()
    held = len(jax.live_arrays())
    records = run(problem, data, first)
    kinds = [type(next(records)) for _ in range(4)]
    assert kinds == [Evaluation, Step, Step, Evaluation]
    assert len(jax.live_arrays()) > held
    records.close()  # type: ignore[attr-defined]
    del records
    gc.collect()
    assert len(jax.live_arrays()) == held
    again = descend(problem, data, first)._replace(seconds=0)
    assert same_bits(again, wanted)


def test_a_step_changes_no_state_that_was_given(setting: Setting) -> None:
    """States of earlier steps stay as they were told."""
    problem, data = problem_of(setting), data_of(setting)
    first = init(problem, setting.qparams, jax.random.key(0))
    seen: list[tuple[Any, Any]] = []
    for record in run(problem, data, first):
        if isinstance(record, Step):
            seen.append((record.state.point, jax.tree.map(np.array, record.state.point)))
    assert len(seen) > 3
    assert all(same_bits(*pair) for pair in seen)
