"""The algorithms of evosax, and classes of a user like them, as records."""

from __future__ import annotations

import inspect
from functools import cache
from typing import TYPE_CHECKING, Any

import evosax.algorithms
import optax
from evosax.algorithms.base import EvolutionaryAlgorithm
from evosax.algorithms.distribution_based.base import DistributionBasedAlgorithm
from evosax.algorithms.population_based.base import PopulationBasedAlgorithm

from evolq_jax.errors import UserError
from evolq_jax.named import first_line
from evolq_jax.search.algorithms.base import Algorithm

if TYPE_CHECKING:
    from evolq_jax.search.config import SearchConfig

BASES = (DistributionBasedAlgorithm, PopulationBasedAlgorithm)
MOVES_BY_DIFFERENCES = (evosax.algorithms.DifferentialEvolution, evosax.algorithms.PSO)
# Solutions are in units of a step. With evosax's learning rate of 1e-3 the mean would stay where it starts.
UNIT_STEPS: dict[type, dict[str, Any]] = {evosax.algorithms.Open_ES: {"optimizer": optax.sgd(1.0)}}

# Learned algorithms whose packaged weights evosax unpickles; nothing is unpickled here.
UNPICKLING = ("CMAAnchoredLES", "EvoTF_ES", "LearnedES", "LearnedGA")

# With one candidate these ask for NaN from their second generation on.
NEED_TWO = (
    evosax.algorithms.CMA_ES,
    evosax.algorithms.DiscoveredES,
    evosax.algorithms.LM_MA_ES,
    evosax.algorithms.MA_ES,
    evosax.algorithms.Rm_ES,
    evosax.algorithms.Sep_CMA_ES,
)


@cache  # one record for a class, so that equal settings are equal
def from_class(cls: type[EvolutionaryAlgorithm]) -> Algorithm:
    """The record of a class of evosax, or of a user's subclass, under the class's name.

    Raises:
      UserError: it is based on neither kind of evosax's algorithms, or needs more than a population size and
        a solution to be built.
    """
    if not issubclass(cls, BASES):
        raise UserError(
            f"search.algorithm '{cls.__name__}' is no subclass of evosax's population- or "
            "distribution-based algorithms: give it one of these as its base"
        )
    if not takes_size_and_solution(cls):
        raise UserError(
            f"search.algorithm '{cls.__name__}' needs more than a population size and a solution: pass an "
            "evolq_jax.search.algorithms.base.Algorithm that says how to make it"
        )

    def make(config: SearchConfig, solution: Any) -> EvolutionaryAlgorithm:
        if config.population_size < 2 and issubclass(cls, NEED_TWO):
            raise UserError("it learns from differences of candidates, so it needs at least 2")
        return cls(config.population_size, solution, **UNIT_STEPS.get(cls, {}))

    return Algorithm(
        cls.__name__,
        first_line(cls.__doc__),
        make,
        jitters=issubclass(cls, MOVES_BY_DIFFERENCES),
    )


def takes_size_and_solution(cls: type[EvolutionaryAlgorithm]) -> bool:
    """Some need more to be built: a sampling function, or a number of populations."""
    parameters = inspect.signature(cls).parameters.values()
    needed = [p.name for p in parameters if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD]
    return needed == ["population_size", "solution"]


def evosax_algorithms() -> dict[str, Algorithm]:
    """Every algorithm of evosax that needs no more than a population size, by its class's name."""
    members = {name: getattr(evosax.algorithms, name) for name in dir(evosax.algorithms)}
    return {
        name: from_class(member)
        for name, member in members.items()
        if isinstance(member, type)
        and issubclass(member, BASES)
        and takes_size_and_solution(member)
        and name not in UNPICKLING
    }
