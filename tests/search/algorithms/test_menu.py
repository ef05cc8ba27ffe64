from typing import Any

import evosax.algorithms
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from evosax.algorithms.base import EvolutionaryAlgorithm

from evolq_jax.errors import UserError
from evolq_jax.search.algorithms.base import Algorithm, unravel
from evolq_jax.search.algorithms.menu import ALGORITHMS, find_algorithm
from evolq_jax.search.config import SearchConfig

SOLUTION = {"a": jnp.zeros((1, 1)), "b": jnp.zeros((1, 3))}


# Each with a step that finds something in twelve generations of six.
MENU = ("EvolQ", "OnePlusLambda", "Grid", "CMA_ES", "Sep_CMA_ES", "SNES", "Open_ES", "DifferentialEvolution",
        "SimpleGA", "PSO")  # fmt: skip


def settings(name: Any, population_size: int = 6, **changes: Any) -> SearchConfig:
    parametrization = "raw" if name == "EvolQ" else "log"
    sizes: dict[str, Any] = {"pool_size": 5, "tournament_size": 3, "population_size": population_size}
    return SearchConfig(algorithm=name, parametrization=parametrization, epsilon=0.5, **sizes | changes)


def make(name: str, population_size: int = 6, **changes: Any) -> EvolutionaryAlgorithm:
    return settings(name, population_size, **changes).strategy(SOLUTION).algorithm


def test_the_menu_is_ours_and_what_of_evosax_needs_no_more_than_a_size() -> None:
    names = set(ALGORITHMS)
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
    config, kind, algorithm = settings(name), find_algorithm(name), make(name)
    params = kind.params(config, algorithm)

    def fitness_fn(solution: Any) -> jax.Array:
        return sum(jnp.sum((leaf - 0.3) ** 2) for leaf in jax.tree.leaves(solution))  # type: ignore[return-value]

    first = fitness_fn(solution)
    state = kind.start(algorithm, jax.random.key(0), solution, fitness=first, params=params)
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


class Halfway(evosax.algorithms.SNES):
    """A user's own."""


def test_a_class_or_a_record_is_passed_itself() -> None:
    config = SearchConfig(algorithm=Halfway)
    assert config == SearchConfig(algorithm=Halfway)
    assert find_algorithm(config.algorithm).name == "Halfway"
    assert isinstance(config.strategy(SOLUTION).algorithm, Halfway)
    assert find_algorithm(evosax.algorithms.PSO) is ALGORITHMS["PSO"]
    two = Algorithm("Two", "", lambda config, solution: Halfway(2, solution), sweeps=True, moves="scale")
    strategy = SearchConfig(algorithm=two, parametrization="raw").strategy(SOLUTION)
    assert strategy.algorithm.population_size == 2
    assert strategy.num_generations(3) == 3 * 4
    with pytest.raises(UserError, match=r"'log' does not suit search\.algorithm 'Two'; choose 'raw'"):
        SearchConfig(algorithm=two, parametrization="log")


@pytest.mark.parametrize(
    ("algorithm", "message"),
    [
        (int, "'int' is no subclass of evosax's population- or distribution-based algorithms"),
        (evosax.algorithms.RandomSearch, "'RandomSearch' needs more than a population size and a solution"),
        (
            Algorithm("SNES", "", lambda config, solution: Halfway(2, solution)),
            "search.algorithm has 'SNES', which",
        ),
    ],
)
def test_what_cannot_be_an_algorithm_is_refused(algorithm: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        SearchConfig(algorithm=algorithm)


def test_what_was_refused_is_taken_once_it_is_changed_as_the_messages_say() -> None:
    def make(config: SearchConfig, solution: Any) -> Any:
        return evosax.algorithms.RandomSearch(2, solution, lambda key: solution)

    renamed = Algorithm("MySNES", "", lambda config, solution: Halfway(2, solution))
    for algorithm in (Halfway, renamed, Algorithm("Random", "", make)):
        assert SearchConfig(algorithm=algorithm).strategy(SOLUTION).algorithm.population_size >= 2
