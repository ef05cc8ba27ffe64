"""Runs asked and told at once give what each would give alone; a search scores them as one population."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evolq_jax.errors import UserError
from evolq_jax.search.algorithms import make_algorithm, make_params, start
from evolq_jax.search.config import SearchConfig, num_evaluations
from evolq_jax.search.restarts import Restarts
from tests.search.setting import Setting
from tests.search.test_blockwise import SNES, run

SOLUTION = {"a": jnp.full((1, 1), 2.0), "b": jnp.full((1, 3), 1.0)}
RUNS, CHILDREN = 3, 6


def fitness_fn(solution: Any) -> jax.Array:
    return sum(jnp.sum((leaf - 0.3) ** 2) for leaf in jax.tree.leaves(solution))  # type: ignore[return-value]


@pytest.mark.parametrize("name", ["SNES", "CMA_ES", "PSO", "EvolQ"])
def test_runs_at_once_are_runs_one_by_one(name: str) -> None:
    pool = {"pool_size": 5, "tournament_size": 3, "mutation": "relative", "replacement": "worst"}
    algorithm = make_algorithm(name, CHILDREN, SOLUTION, **pool)  # type: ignore[arg-type]
    params = make_params(algorithm, jnp.float32(0.5), jnp.float32(1.0))
    together, first = Restarts(algorithm, RUNS), fitness_fn(SOLUTION)
    state = together.start(jax.random.key(0), SOLUTION, first, params)
    alone = [
        start(algorithm, key, SOLUTION, first, params) for key in jax.random.split(jax.random.key(0), RUNS)
    ]
    for generation in range(4):
        ask_key, tell_key = jax.random.split(jax.random.key(generation))
        population, state = together.ask(ask_key, state, params)
        fitness = jax.vmap(fitness_fn)(population)
        state = together.tell(tell_key, population, fitness, state, params)
        ask_keys, tell_keys = (jax.random.split(key, RUNS) for key in (ask_key, tell_key))
        for number, one in enumerate(alone):
            children, one = algorithm.ask(ask_keys[number], one, params)
            members = slice(number * CHILDREN, (number + 1) * CHILDREN)
            np.testing.assert_allclose(population["b"][members], children["b"], rtol=1e-4, atol=1e-5)
            fitness = jax.vmap(fitness_fn)(children)
            alone[number], _ = algorithm.tell(tell_keys[number], children, fitness, one, params)
    best = [float(one.best_fitness) for one in alone]
    assert len(set(best)) == RUNS
    assert float(together.best_fitness(state)) == pytest.approx(min(best), rel=1e-4)
    assert float(fitness_fn(together.best(state))) == pytest.approx(min(best), rel=1e-4)


def test_all_restarts_of_a_search_are_scored_and_paid_for(setting: Setting) -> None:
    config = replace(SNES, restarts=3, population_size=2)
    _, result, told = run(setting, config)
    assert result.evaluations == num_evaluations(config, 3) == 1 + 3 * 2 * 3 * 2
    assert told[0].candidate_images == pytest.approx(12 + (1 + 6) * 12 / 3, abs=1e-3)
    assert result.fitness == pytest.approx(setting.fitness(result.qparams), rel=1e-3)
    assert result.fitness < result.start_fitness
    noisy = replace(config, min_gain=1.0, halving=2)
    assert run(setting, noisy).result.evaluations <= num_evaluations(noisy, 3)


def test_a_grid_has_no_restarts() -> None:
    with pytest.raises(UserError, match=r"restarts must be 1 with search\.algorithm 'Grid'"):
        SearchConfig(algorithm="Grid", restarts=2)
