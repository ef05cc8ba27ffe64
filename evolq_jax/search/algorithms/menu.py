"""Search algorithms by name: ours, and every one of evosax."""

from evosax.algorithms.base import EvolutionaryAlgorithm

from evolq_jax.named import find
from evolq_jax.search.algorithms.base import Algorithm
from evolq_jax.search.algorithms.evolq import EVOLQ
from evolq_jax.search.algorithms.evosax_menu import evosax_algorithms, from_class
from evolq_jax.search.algorithms.grid import GRID
from evolq_jax.search.algorithms.one_plus_lambda import ONE_PLUS_LAMBDA

ALGORITHMS: dict[str, Algorithm] = {
    **{algorithm.name: algorithm for algorithm in (EVOLQ, ONE_PLUS_LAMBDA, GRID)},
    **evosax_algorithms(),
}


def find_algorithm(given: str | Algorithm | type[EvolutionaryAlgorithm]) -> Algorithm:
    """The record of a name, of a class of evosax or a subclass of one, or a record itself.

    Raises:
      UserError: the name is unknown, or the class cannot be used.
    """
    if isinstance(given, type):
        return from_class(given)
    return find(given, ALGORITHMS, "unknown search algorithm")
