"""Search algorithms by name: ours and all of evosax, with one way to start them."""

import inspect
from functools import partial
from typing import Any

import evosax.algorithms
import jax
import jax.numpy as jnp
import optax
from evosax.algorithms.base import EvolutionaryAlgorithm
from evosax.algorithms.distribution_based.base import DistributionBasedAlgorithm
from evosax.algorithms.population_based.base import PopulationBasedAlgorithm
from jax.flatten_util import ravel_pytree

from evolq_jax.errors import UserError, suggestion
from evolq_jax.search.evolq import EvolQ, Mutation, Replacement
from evolq_jax.search.grid import Grid
from evolq_jax.search.one_plus_lambda import OnePlusLambda, StepSize
from evolq_jax.typing import Array

MOVES_BY_DIFFERENCES = (evosax.algorithms.DifferentialEvolution, evosax.algorithms.PSO)
OWN: dict[str, type[EvolutionaryAlgorithm]] = {"EvolQ": EvolQ, "OnePlusLambda": OnePlusLambda, "Grid": Grid}
# Solutions are in units of a step. With evosax's learning rate of 1e-3 the mean would stay where it starts.
UNIT_STEPS: dict[str, dict[str, Any]] = {"Open_ES": {"optimizer": optax.sgd(1.0)}}

# Learned algorithms whose packaged weights evosax unpickles; nothing is unpickled here.
UNPICKLING = ("CMAAnchoredLES", "EvoTF_ES", "LearnedES", "LearnedGA")


def list_algorithms() -> dict[str, type[EvolutionaryAlgorithm]]:
    """Every algorithm that a config can name."""
    bases = (DistributionBasedAlgorithm, PopulationBasedAlgorithm)
    found = dict(OWN)
    for name in dir(evosax.algorithms):
        member = getattr(evosax.algorithms, name)
        fits = isinstance(member, type) and issubclass(member, bases) and _takes_size_and_solution(member)
        if fits and name not in UNPICKLING:
            found[name] = member
    return found


def _takes_size_and_solution(cls: type[EvolutionaryAlgorithm]) -> bool:
    """Leaves out algorithms that need more: a sampling function, or a number of populations."""
    parameters = inspect.signature(cls).parameters.values()
    needed = [p.name for p in parameters if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD]
    return needed == ["population_size", "solution"]


def make_algorithm(
    name: str,
    population_size: int,
    solution: Any,
    *,
    pool_size: int,
    tournament_size: int,
    mutation: Mutation,
    replacement: Replacement,
    antithetic: bool = False,
    step_size: StepSize = "one_fifth",
) -> EvolutionaryAlgorithm:
    """An algorithm over solutions of one shape. Each instance compiles anew, so build one and keep it.

    Raises:
      UserError: the name is unknown, or the algorithm refuses this population size.
    """
    known = list_algorithms()
    if name not in known:
        hint = suggestion(name, known) or f" (known: {', '.join(known)})"
        raise UserError(f"unknown search algorithm '{name}'{hint}")
    settings: dict[str, Any] = UNIT_STEPS.get(name, {})
    if name == "EvolQ":
        settings = {"pool_size": pool_size, "tournament_size": tournament_size}
        settings |= {"mutation": mutation, "replacement": replacement}
    elif name == "OnePlusLambda":
        settings = {"antithetic": antithetic, "step_size": step_size}
    try:
        return known[name](population_size, solution, **settings)
    except (AssertionError, ValueError, TypeError) as error:
        raise UserError(
            f"search algorithm '{name}' cannot be built with population_size={population_size}: {error}"
        ) from error


def make_params(algorithm: EvolutionaryAlgorithm, epsilon: Array, density: Array) -> Any:
    """An algorithm's traced settings: its own, changed by those of the config that it knows."""
    params = algorithm.default_params
    if isinstance(algorithm, EvolQ):
        return params.replace(epsilon=epsilon)
    return params.replace(density=density) if isinstance(algorithm, OnePlusLambda) else params


def num_generations(algorithm: EvolutionaryAlgorithm, generations: int) -> int:
    """How often a visit asks and tells. A grid's generation is a sweep over all coordinates."""
    return generations * (algorithm.num_dims if isinstance(algorithm, Grid) else 1)


def start(algorithm: EvolutionaryAlgorithm, key: Array, solution: Any, fitness: Array, params: Any) -> Any:
    """The state that begins at one evaluated solution, which is the best so far.

    - Population-based algorithms start from copies of the solution.
    - Algorithms that move by differences between members would never leave such copies. They start from the
      solution and from normal noise of size one around it, with the same fitness.
    - Distribution-based algorithms take the solution as their mean. They never evaluate their start, so it is
      put into their archive here.
    """
    if isinstance(algorithm, PopulationBasedAlgorithm):
        copies = algorithm.pool_size if isinstance(algorithm, EvolQ) else algorithm.population_size
        if isinstance(algorithm, OnePlusLambda | Grid):
            copies = 1
        population = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (copies, *leaf.shape)), solution)
        if isinstance(algorithm, MOVES_BY_DIFFERENCES):
            population = jax.vmap(partial(_jitter, solution))(jax.random.split(key, copies))
            population = jax.tree.map(lambda all_, leaf: all_.at[0].set(leaf), population, solution)
        return algorithm.init(key, population, jnp.full(copies, fitness), params)
    state = algorithm.init(key, solution, params)
    flat = ravel_pytree(solution)[0]
    return state.replace(best_solution=flat, best_fitness=fitness)


def _jitter(solution: Any, key: Array) -> Any:
    flat, to_tree = ravel_pytree(solution)
    return to_tree(flat + jax.random.normal(key, flat.shape))


def unravel(algorithm: EvolutionaryAlgorithm, flat: Array) -> Any:
    """A solution from a flat vector [D], the form in which evosax's states hold it."""
    return algorithm._unravel_solution(flat)  # pyright: ignore[reportPrivateUsage]
