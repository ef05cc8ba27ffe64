"""The programs of a visit around the scores: a strategy is started, asked for candidates, and told of them.

Each is one program, so nothing is compiled or launched one operation at a time, and the host waits for a
generation's few numbers alone. Scores are a program of their own: all algorithms share it.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from evolq_jax.devices.unoptimized import Unoptimized
from evolq_jax.quant.qparams import QParams
from evolq_jax.search.algorithms.strategy import Strategy
from evolq_jax.search.config import SearchConfig
from evolq_jax.search.space import SearchSpace
from evolq_jax.typing import Array


class Method(NamedTuple):
    """How a visit finds candidates; static."""

    config: SearchConfig
    space: SearchSpace
    strategy: Strategy

    @property
    def params(self) -> Any:
        """The strategy's settings. Inside a program, or each would be made by a program of its own."""
        return self.strategy.params(self.config)

    def decode(self, solution: dict[str, Array], at: QParams) -> QParams:
        """The blocks' scales, with a leading axis [blocks], for a solution."""
        return self.space.decode_blocks(solution, at, self.config.epsilon)


class Running(NamedTuple):
    """A strategy at work in a visit."""

    key: Array  # the visit's
    state: Any  # of the strategy


class Asked(NamedTuple):
    """What `tell` needs of the candidates beside their fitness."""

    population: Any  # the solutions that stand for them, [P] on every leaf
    tell_key: Array


class Told(NamedTuple):
    """What the host is told of a generation; scalars."""

    finite: Array  # whether any candidate has a finite fitness
    fitness: Array  # the generation's best
    best_fitness: Array  # the visit's best so far


@partial(Unoptimized, static_argnames=("method",))
def start(
    method: Method,
    at: QParams,
    *,
    key: Array,
    visits: Array | np.int32,
    fitness: Array | np.ndarray,
) -> Running:
    """The strategy at the start of a visit, `at` blocks with a leading axis [blocks] and their fitness.

    Args:
      method: how candidates are found.
      at: the blocks' scales as they are.
      key: the search's.
      visits: before this one.
      fitness: [] of the network as it is.
    """
    key = jax.random.fold_in(key, visits)
    solution, params = method.space.encode_blocks(at), method.params
    state = method.strategy.start(key, solution, fitness=jnp.asarray(fitness), params=params)
    return Running(key, _firm(state))


@partial(Unoptimized, static_argnames=("method",))
def ask(
    method: Method,
    at: QParams,
    *,
    running: Running,
    generation: Array | np.int32,
) -> tuple[QParams, Asked, Running]:
    """Candidates for the blocks: scales with leading axes [P, blocks] on every leaf; else as `start`."""
    ask_key, tell_key = jax.random.split(jax.random.fold_in(running.key, generation))
    population, state = method.strategy.ask(ask_key, running.state, method.params)
    candidates = jax.vmap(method.decode, in_axes=(0, None))(population, at)
    return candidates, Asked(population, tell_key), running._replace(state=_firm(state))


@partial(Unoptimized, static_argnames=("method",))
def tell(
    method: Method,
    at: QParams,
    *,
    running: Running,
    asked: Asked,
    fitness: Array,
) -> tuple[Running, Told, QParams]:
    """The strategy after a generation, what the host is told, and the best blocks so far; else as `start`.

    A fitness [P] that is not finite counts as the worst finite one: algorithms take differences and minima,
    which one NaN would spoil. A strategy is not told of a generation without any finite one.
    """
    finite = jnp.isfinite(fitness)
    ranked = jnp.where(finite, fitness, jnp.where(finite, fitness, -jnp.inf).max())
    strategy, params = method.strategy, method.params
    told = strategy.tell(asked.tell_key, asked.population, ranked, running.state, params=params)
    state = jax.tree.map(partial(jnp.where, finite.any()), told, running.state)
    best = method.decode(strategy.best(state), at)
    lowest = jnp.where(finite.any(), ranked, fitness).min()
    news = Told(finite.any(), lowest, strategy.best_fitness(state))
    return running._replace(state=_firm(state)), news, best


def _firm(state: Any) -> Any:
    """The state without JAX's weak types. A first state has some, later ones have others."""

    def one(leaf: Array) -> Array:
        is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        return leaf if is_key else jax.lax.convert_element_type(leaf, leaf.dtype)

    return jax.tree.map(lambda leaf: one(jnp.asarray(leaf)), state)
