"""Evol-Q's tournament search (paper section 4.2; official code) as an evosax algorithm."""

from typing import Any, Literal

import jax
import jax.numpy as jnp
from evosax.algorithms.population_based.base import Params as BaseParams
from evosax.algorithms.population_based.base import PopulationBasedAlgorithm
from evosax.algorithms.population_based.base import State as BaseState
from flax import struct

from evolq_jax.search.algorithms.base import Algorithm
from evolq_jax.typing import Array

Mutation = Literal["absolute", "relative"]
Replacement = Literal["worst", "oldest"]


@struct.dataclass
class State(BaseState):
    """The pool of members (population [pool, D], fitness [pool]), each with its generation of birth."""

    born: Array


@struct.dataclass
class Params(BaseParams):
    """Traced settings: the half width of the uniform mutation."""

    epsilon: Array | float


class EvolQ(PopulationBasedAlgorithm):
    """Tournament, mutation of the winner, and replacement, in a pool that outlives a generation.

    For each child, a generation draws `tournament_size` members with replacement. The fittest of them is the
    parent. A child is `|parent + U(-eps, eps)|` element-wise (`absolute`, as released) or `|parent (1 +
    U(-eps, eps))|` (`relative`). Children join the pool. Then the worst members (as released) or the oldest
    ones leave it. The released code has one child and a pool of 15 copies of the start. `pool_size=1`, with
    the worst replaced, is a (1 + children) search.

    Solutions are positive scales, in any tree. Initialise with `pool_size` copies of the start and their
    fitness. `population_size` is the number of children, because `ask` returns that many.
    """

    def __init__(
        self,
        population_size: int,
        solution: Any,
        *,
        pool_size: int = 15,
        tournament_size: int = 10,
        mutation: Mutation = "absolute",
        replacement: Replacement = "worst",
    ) -> None:
        """Static settings. Numbers that one sweeps are in `Params`."""
        super().__init__(population_size, solution)
        self.pool_size = pool_size
        self.tournament_size = tournament_size
        self.mutation = mutation
        self.replacement = replacement

    @property
    def _default_params(self) -> Params:
        return Params(epsilon=1e-3)

    def _init(self, key: Array, params: Params) -> State:
        del key, params
        return State(
            population=jnp.full((self.pool_size, self.num_dims), jnp.nan),
            fitness=jnp.full((self.pool_size,), jnp.inf),
            born=jnp.zeros(self.pool_size, jnp.int32),
            best_solution=jnp.full((self.num_dims,), jnp.nan),
            best_fitness=jnp.inf,  # type: ignore[arg-type]
            generation_counter=0,
        )

    def _ask(self, key: Array, state: State, params: Params) -> tuple[Array, State]:
        draw_key, mutation_key = jax.random.split(key)
        draw_shape = (self.population_size, self.tournament_size)
        drawn = jax.random.randint(draw_key, draw_shape, 0, self.pool_size)
        winners = jnp.take_along_axis(drawn, jnp.argmin(state.fitness[drawn], axis=1)[:, None], axis=1)[:, 0]
        parents = state.population[winners]
        step = params.epsilon * jax.random.uniform(mutation_key, parents.shape, minval=-1.0, maxval=1.0)
        children = parents * (1.0 + step) if self.mutation == "relative" else parents + step
        return jnp.abs(children), state

    def _tell(self, key: Array, population: Array, fitness: Array, state: State, params: Params) -> State:
        del key, params
        population = jnp.concatenate([state.population, population])
        fitness = jnp.concatenate([state.fitness, jnp.where(jnp.isnan(fitness), jnp.inf, fitness)])
        now = jnp.full(self.population_size, state.generation_counter + 1, jnp.int32)
        born = jnp.concatenate([state.born, now])
        # The released code drops the *last* of equally bad members: a stable sort keeps the older one.
        order = jnp.argsort(fitness if self.replacement == "worst" else -born, stable=True)
        kept = order[: self.pool_size]
        return state.replace(population=population[kept], fitness=fitness[kept], born=born[kept])  # type: ignore[attr-defined]


EVOLQ = Algorithm(
    "EvolQ",
    "the paper's tournament, with uniform mutations of the scales",
    lambda config, solution: EvolQ(
        config.population_size,
        solution,
        pool_size=config.pool_size,
        tournament_size=config.tournament_size,
        mutation=config.mutation,
        replacement=config.replacement,
    ),
    set_params=lambda config, params: params.replace(epsilon=jnp.float32(config.epsilon)),
    copies=lambda algorithm: algorithm.pool_size,
    moves="scale",
)
