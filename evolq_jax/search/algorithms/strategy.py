"""An algorithm at work: independent runs of it from one start, asked and told at once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from evosax.algorithms.base import EvolutionaryAlgorithm

from evolq_jax.search.algorithms.base import Algorithm, unravel
from evolq_jax.typing import Array

if TYPE_CHECKING:
    from evolq_jax.search.config import SearchConfig


@dataclass(frozen=True)
class Strategy:
    """`count` (R) runs of an algorithm over solutions of one shape. The result is the best of all runs.

    The runs differ only in their keys, so they are useless for an algorithm without randomness. With several
    runs, states have a leading R axis. A population [R x P] holds the members of one run after the other.

    Attributes:
      kind: the algorithm's record.
      algorithm: evosax's object, which compiles its programs once.
      count: R.
    """

    kind: Algorithm
    algorithm: EvolutionaryAlgorithm
    count: int = 1

    def params(self, config: SearchConfig) -> Any:
        """The algorithm's own settings, and those of the search that it knows."""
        return self.kind.params(config, self.algorithm)

    def start(self, key: Array, solution: Any, *, fitness: Array, params: Any) -> Any:
        """The states of runs that begin at one evaluated solution."""
        if self.count == 1:
            return self.kind.start(self.algorithm, key, solution, fitness=fitness, params=params)
        return self._start(jax.random.split(key, self.count), solution, fitness, params)

    def ask(self, key: Array, state: Any, params: Any) -> tuple[Any, Any]:
        """New solutions with a leading [R x P] axis, and the new states."""
        if self.count == 1:
            return self.algorithm.ask(key, state, params)
        return self._ask(jax.random.split(key, self.count), state, params)

    def tell(self, key: Array, population: Any, fitness: Array, state: Any, *, params: Any) -> Any:
        """The new states, from the fitness [R x P] of these solutions."""
        if self.count == 1:
            return self.algorithm.tell(key, population, fitness, state, params)[0]
        return self._tell(jax.random.split(key, self.count), population, fitness, state, params=params)

    def best(self, state: Any) -> Any:
        """The best solution so far."""
        found = state.best_solution
        return unravel(self.algorithm, found if self.count == 1 else found[jnp.argmin(state.best_fitness)])

    def best_fitness(self, state: Any) -> Array:
        """Its fitness."""
        return state.best_fitness if self.count == 1 else state.best_fitness.min()

    def num_generations(self, generations: int) -> int:
        """How often a visit asks and tells."""
        return generations * (self.algorithm.num_dims if self.kind.sweeps else 1)

    def _start(self, keys: Array, solution: Any, fitness: Array, params: Any) -> Any:
        start = partial(self.kind.start, self.algorithm, fitness=fitness, params=params)
        return jax.vmap(lambda key: start(key, solution))(keys)

    def _ask(self, keys: Array, state: Any, params: Any) -> tuple[Any, Any]:
        population, state = jax.vmap(self.algorithm.ask, in_axes=(0, 0, None))(keys, state, params)
        return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), population), state

    def _tell(self, keys: Array, population: Any, fitness: Array, state: Any, *, params: Any) -> Any:
        by_run = jax.tree.map(lambda leaf: leaf.reshape(self.count, -1, *leaf.shape[1:]), population)
        tell = jax.vmap(self.algorithm.tell, in_axes=(0, 0, 0, 0, None))
        return tell(keys, by_run, fitness.reshape(self.count, -1), state, params)[0]
