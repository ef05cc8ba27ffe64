"""A coarse-to-fine grid search along one coordinate after the other, as an evosax algorithm."""

from typing import Any

import jax.numpy as jnp
from evosax.algorithms.population_based.base import Params as BaseParams
from evosax.algorithms.population_based.base import PopulationBasedAlgorithm
from evosax.algorithms.population_based.base import State as BaseState
from flax import struct

from evolq_jax.search.algorithms.base import Algorithm
from evolq_jax.typing import Array


@struct.dataclass
class State(BaseState):
    """The best point so far: population [1, D], fitness [1]."""


@struct.dataclass
class Params(BaseParams):
    """Traced settings: how far the first sweep's grid reaches on either side."""

    width: Array | float


class Grid(PopulationBasedAlgorithm):
    """A generation tries `population_size` values of one coordinate and moves to the best, if it is better.

    A sweep has one generation for each coordinate, in order. Its grid is the present value plus evenly spaced
    offsets up to `width` on both sides, without zero. With an odd number, the farthest upper one is left out.
    The next sweep's grid reaches as far as the points of this one lie apart. Over log ratios to calibrated
    scales this is a search over clip ratios. There is no randomness. Solutions are any tree without bounds.
    """

    def __init__(self, population_size: int, solution: Any) -> None:
        """A grid that tries `population_size` points at a time."""
        super().__init__(population_size, solution)

    @property
    def offsets(self) -> Array:
        """The grid's offsets [population_size], in units of the width."""
        half = (self.population_size + 1) // 2
        steps = jnp.arange(1, half + 1) / half
        return jnp.concatenate([-steps[::-1], steps])[: self.population_size]

    @property
    def _default_params(self) -> Params:
        return Params(width=4.0)

    def _init(self, key: Array, params: Params) -> State:
        del key, params
        return State(
            population=jnp.full((1, self.num_dims), jnp.nan),
            fitness=jnp.full((1,), jnp.inf),
            best_solution=jnp.full((self.num_dims,), jnp.nan),
            best_fitness=jnp.inf,  # type: ignore[arg-type]
            generation_counter=0,
        )

    def _ask(self, key: Array, state: State, params: Params) -> tuple[Array, State]:
        del key
        sweep, coordinate = jnp.divmod(jnp.asarray(state.generation_counter), self.num_dims)
        finer = max(2, (self.population_size + 1) // 2)
        moves = params.width * self.offsets / jnp.float32(finer) ** sweep
        points = jnp.repeat(state.population, self.population_size, axis=0)
        return points.at[:, coordinate].add(moves), state

    def _tell(self, key: Array, population: Array, fitness: Array, state: State, params: Params) -> State:
        del key, population, fitness, params
        # The archive holds the best of all that was evaluated, the start included: the next centre.
        return state.replace(  # type: ignore[attr-defined]
            population=state.best_solution[None], fitness=jnp.reshape(state.best_fitness, 1)
        )


GRID = Algorithm(
    "Grid",
    "a coarse-to-fine grid along one coordinate after the other",
    lambda config, solution: Grid(config.population_size, solution),
    copies=lambda algorithm: 1,
    sweeps=True,
    draws=False,
)
