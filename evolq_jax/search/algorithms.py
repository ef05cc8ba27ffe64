"""Search algorithms by name: the paper's, and every one of evosax, behind one way to start them."""

from typing import Any

import evosax.algorithms
import jax
import jax.numpy as jnp
from evosax.algorithms.base import EvolutionaryAlgorithm
from evosax.algorithms.distribution_based.base import DistributionBasedAlgorithm
from evosax.algorithms.population_based.base import PopulationBasedAlgorithm

from evolq_jax.errors import UserError, suggestion
from evolq_jax.search.evolq import EvolQ, Mutation, Replacement
from evolq_jax.typing import Array


def list_algorithms() -> dict[str, type[EvolutionaryAlgorithm]]:
    """Every algorithm that a config can name."""
    bases = (DistributionBasedAlgorithm, PopulationBasedAlgorithm)
    found = {name: getattr(evosax.algorithms, name) for name in dir(evosax.algorithms)}
    return {"EvolQ": EvolQ} | {
        name: cls for name, cls in found.items() if isinstance(cls, type) and issubclass(cls, bases)
    }


def make_algorithm(
    name: str,
    population_size: int,
    solution: Any,
    *,
    pool_size: int,
    tournament_size: int,
    mutation: Mutation,
    replacement: Replacement,
) -> EvolutionaryAlgorithm:
    """An algorithm over solutions of one shape. Each instance compiles anew: build one and keep it.

    Raises:
      UserError: the name is unknown, or the algorithm refuses this population size.
    """
    known = list_algorithms()
    if name not in known:
        raise UserError(f"unknown search algorithm '{name}'{suggestion(name, known)} (known: {', '.join(known)})")
    if name == "EvolQ":
        return EvolQ(
            population_size,
            solution,
            pool_size=pool_size,
            tournament_size=tournament_size,
            mutation=mutation,
            replacement=replacement,
        )
    try:
        return known[name](population_size, solution)
    except (AssertionError, ValueError, TypeError) as error:
        raise UserError(
            f"search algorithm '{name}' cannot be built with population_size={population_size}: {error}"
        ) from error


def start(
    algorithm: EvolutionaryAlgorithm, key: Array, solution: Any, fitness: Array, params: Any
) -> Any:
    """The state that begins at one evaluated solution, which counts as the best so far.

    Population-based algorithms start from copies of it. Distribution-based ones take it as their mean;
    they never evaluate their start, so it is put into their archive here.
    """
    if isinstance(algorithm, PopulationBasedAlgorithm):
        copies = algorithm.pool_size if isinstance(algorithm, EvolQ) else algorithm.population_size
        population = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (copies, *leaf.shape)), solution)
        return algorithm.init(key, population, jnp.full(copies, fitness), params)
    state = algorithm.init(key, solution, params)
    flat = jax.flatten_util.ravel_pytree(solution)[0]
    return state.replace(best_solution=flat, best_fitness=fitness)
