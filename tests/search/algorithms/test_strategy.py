"""Runs asked and told at once give what each would give alone; a search scores them as one population."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evolq_jax.errors import UserError
from evolq_jax.search.algorithms.menu import find_algorithm
from evolq_jax.search.algorithms.strategy import Strategy
from evolq_jax.search.budget import num_evaluations
from evolq_jax.search.config import SearchConfig
from tests.search.setting import Setting
from tests.search.test_driver import SNES, run

SOLUTION = {"a": jnp.full((1, 1), 2.0), "b": jnp.full((1, 3), 1.0)}
RUNS, CHILDREN = 3, 6


def fitness_fn(solution: Any) -> jax.Array:
    return sum(jnp.sum((leaf - 0.3) ** 2) for leaf in jax.tree.leaves(solution))  # type: ignore[return-value]


@pytest.mark.parametrize("name", ["SNES", "CMA_ES", "PSO", "EvolQ"])
def test_runs_at_once_are_runs_one_by_one(name: str) -> None:
    config = SearchConfig(
        algorithm=name,
        parametrization="raw" if name == "EvolQ" else "log",
        population_size=CHILDREN,
        pool_size=5,
        tournament_size=3,
        epsilon=0.5,
    )
    kind = find_algorithm(name)
    algorithm = kind.build(config, SOLUTION)
    params, first = kind.params(config, algorithm), fitness_fn(SOLUTION)
    together = Strategy(kind, algorithm, RUNS)
    state = together.start(jax.random.key(0), SOLUTION, fitness=first, params=params)
    alone = [
        kind.start(algorithm, key, SOLUTION, fitness=first, params=params)
        for key in jax.random.split(jax.random.key(0), RUNS)
    ]
    for generation in range(4):
        ask_key, tell_key = jax.random.split(jax.random.key(generation))
        population, state = together.ask(ask_key, state, params)
        fitness = jax.vmap(fitness_fn)(population)
        state = together.tell(tell_key, population, fitness, state, params=params)
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
