"""A search algorithm as a search sees it: how to build it, its settings, how it starts, what a visit asks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import jax
import jax.numpy as jnp
from evosax.algorithms.base import EvolutionaryAlgorithm
from evosax.algorithms.population_based.base import PopulationBasedAlgorithm
from jax.flatten_util import ravel_pytree

from evolq_jax.errors import UserError
from evolq_jax.named import only_name_recorded
from evolq_jax.typing import Array

if TYPE_CHECKING:
    from evolq_jax.search.config import SearchConfig


@dataclass(frozen=True)
class Algorithm:
    """A kind of search algorithm: a record around evosax's class, ours or a user's.

    Attributes:
      name: what a config calls it, and what is recorded.
      does: what it does, in one sentence without a full stop.
      make: `(SearchConfig, solution) -> EvolutionaryAlgorithm` builds evosax's object. A solution is any tree
        of arrays.
      set_params: `(SearchConfig, params) -> params` puts traced settings of the search into the algorithm's
        default parameters.
      copies: of the start, in the first population of a population-based algorithm; None: its whole size.
      jitters: whether its first population is the start and normal noise of size one around it. Algorithms
        that move by the differences of their members would never leave copies of one point.
      sweeps: whether one of the config's generations is a sweep: a time to ask and tell for each coordinate.
      moves: what a coordinate of its solutions is: a `step` from the start, which begins at zero, or the
        `scale` itself. None: not known.
      draws: whether it uses random numbers, so that independent runs differ.
    """

    name: str
    does: str
    make: Callable[[Any, Any], EvolutionaryAlgorithm]
    _: KW_ONLY
    set_params: Callable[[Any, Any], Any] = lambda config, params: params
    copies: Callable[[Any], int] | None = None
    jitters: bool = False
    sweeps: bool = False
    moves: Literal["step", "scale"] | None = "step"
    draws: bool = True

    def build(self, config: SearchConfig, solution: Any) -> EvolutionaryAlgorithm:
        """Evosax's object over solutions of one shape. Each one compiles anew: build one and keep it.

        Raises:
          UserError: the algorithm refuses this population size.
        """
        try:
            return self.make(config, solution)
        except ArithmeticError as error:  # of a size that leaves nothing to compute with
            raise UserError(
                f"search algorithm '{self.name}' cannot be built with "
                f"population_size={config.population_size}: it needs more"
            ) from error
        except Exception as error:  # whatever another project's constructor raises
            raise UserError(
                f"search algorithm '{self.name}' cannot be built with "
                f"population_size={config.population_size}: {str(error) or type(error).__name__}"
            ) from error

    def params(self, config: SearchConfig, algorithm: EvolutionaryAlgorithm) -> Any:
        """The traced settings: the algorithm's own, and those of the search that it knows."""
        return self.set_params(config, algorithm.default_params)

    def start(
        self, algorithm: EvolutionaryAlgorithm, key: Array, solution: Any, *, fitness: Array, params: Any
    ) -> Any:
        """The state that begins at one evaluated solution, which counts as the best so far.

        Population-based algorithms start from copies of it. Distribution-based algorithms take it as their
        mean. They never evaluate their start, so it is put into their archive here.
        """
        if isinstance(algorithm, PopulationBasedAlgorithm):
            copies = algorithm.population_size if self.copies is None else self.copies(algorithm)
            population = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (copies, *leaf.shape)), solution)
            if self.jitters:
                noisy = jax.vmap(lambda key: _jitter(solution, key))(jax.random.split(key, copies))
                population = jax.tree.map(lambda all_, leaf: all_.at[0].set(leaf), noisy, solution)
            return algorithm.init(key, population, jnp.full(copies, fitness), params)
        state = algorithm.init(key, solution, params)
        flat = ravel_pytree(solution)[0]
        return state.replace(best_solution=flat, best_fitness=fitness)


@cache  # so that equal names give equal configs
def recorded_algorithm(name: str) -> Algorithm:
    """Stands in for an algorithm whose name alone is recorded. A search with it is refused."""

    def refuse(*args: Any) -> NoReturn:
        raise only_name_recorded(name, "search algorithm")

    return Algorithm(name, "is recorded by its name alone", refuse, moves=None)


def _jitter(solution: Any, key: Array) -> Any:
    flat, to_tree = ravel_pytree(solution)
    return to_tree(flat + jax.random.normal(key, flat.shape))


def unravel(algorithm: EvolutionaryAlgorithm, flat: Array) -> Any:
    """A solution from a flat vector [D], the form in which evosax's states hold it."""
    return algorithm._unravel_solution(flat)  # pyright: ignore[reportPrivateUsage]
