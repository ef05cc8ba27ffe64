from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from evosax.algorithms.base import EvolutionaryAlgorithm

from evolq_jax.errors import UserError
from evolq_jax.search.algorithms import list_algorithms, make_algorithm, make_params, start, unravel

SOLUTION = {"a": jnp.zeros((1, 1)), "b": jnp.zeros((1, 3))}


# Each with a step that finds something in twelve generations of six.
MENU = ("EvolQ", "OnePlusLambda", "Grid", "CMA_ES", "Sep_CMA_ES", "SNES", "Open_ES", "DifferentialEvolution",
        "SimpleGA", "PSO")  # fmt: skip


def make(name: str, population_size: int = 6, **changes: Any) -> EvolutionaryAlgorithm:
    settings: dict[str, Any] = {
        "pool_size": 5,
        "tournament_size": 3,
        "mutation": "relative",
        "replacement": "worst",
    }
    return make_algorithm(name, population_size, SOLUTION, **settings | changes)


def test_the_menu_is_ours_and_what_of_evosax_needs_no_more_than_a_size() -> None:
    names = set(list_algorithms())
    assert set(MENU) <= names
    assert not {"RandomSearch", "SV_CMA_ES", "SV_Open_ES"} & names
    assert not {"LearnedES", "LearnedGA", "EvoTF_ES", "CMAAnchoredLES"} & names  # evosax unpickles theirs
    assert len(names) >= 31
    assert make("EvolQ", 2, pool_size=7).pool_size == 7  # type: ignore[attr-defined]


def test_unknown_names_and_impossible_sizes_are_refused() -> None:
    with pytest.raises(UserError, match="unknown search algorithm 'CMAES'; did you mean 'CMA_ES'"):
        make("CMAES")
    with pytest.raises(UserError, match="'DifferentialEvolution' cannot be built with population_size=2"):
        make("DifferentialEvolution", 2)
    with pytest.raises(UserError, match="=3: antithetic children come in pairs"):
        make("OnePlusLambda", 3, antithetic=True)


@pytest.mark.parametrize("name", MENU)
def test_a_search_starts_at_the_evaluated_solution(name: str) -> None:
    """The start counts as the best, and generations spread around it and improve on a quadratic."""
    solution = {"a": jnp.full((1, 1), 2.0), "b": jnp.full((1, 3), 1.0)}
    algorithm = make(name)
    params = make_params(algorithm, jnp.float32(0.5), jnp.float32(1.0))

    def fitness_fn(solution: Any) -> jax.Array:
        return sum(jnp.sum((leaf - 0.3) ** 2) for leaf in jax.tree.leaves(solution))  # type: ignore[return-value]

    first = fitness_fn(solution)
    state = start(algorithm, jax.random.key(0), solution, first, params)
    assert state.best_fitness == first
    best = unravel(algorithm, state.best_solution)
    assert jax.tree.all(jax.tree.map(jnp.array_equal, best, solution))
    for generation in range(12):
        key, tell_key = jax.random.split(jax.random.key(generation))
        population, state = algorithm.ask(key, state, params)
        fitness = jax.vmap(fitness_fn)(population)
        assert generation > 2 or float(jnp.ptp(fitness)) > 0
        before = float(state.best_fitness)
        state, _ = algorithm.tell(tell_key, population, fitness, state, params)
        assert float(state.best_fitness) == pytest.approx(min(before, float(fitness.min())))
    assert float(state.best_fitness) < 0.8 * float(first)
    np.testing.assert_allclose(
        fitness_fn(unravel(algorithm, state.best_solution)), state.best_fitness, rtol=1e-5
    )
