from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evolq_jax.search.algorithms.base import unravel
from evolq_jax.search.algorithms.grid import GRID, Grid
from evolq_jax.search.algorithms.strategy import Strategy
from evolq_jax.search.config import SearchConfig

SOLUTION = {"a": jnp.zeros((1, 2)), "b": jnp.zeros(1)}
VALLEY = np.array([1.3, -2.6, 0.4])


def loss(x: np.ndarray) -> float:
    """Separable, with its minimum at `VALLEY`."""
    return float(np.sum(np.abs(x - VALLEY)))


def sweep_loop(x: np.ndarray, sweeps: int, points: int, width: float) -> np.ndarray:
    """The grid by plain loops."""
    half = (points + 1) // 2
    offsets = [
        *(-width * i / half for i in range(half, 0, -1)),
        *(width * i / half for i in range(1, half + 1)),
    ]
    for _ in range(sweeps):
        for coordinate in range(len(x)):
            tried = [x]
            for offset in offsets[:points]:
                tried.append(x.copy())
                tried[-1][coordinate] += offset
            x = min(tried, key=loss)
        offsets = [offset / max(2, half) for offset in offsets]
    return x


@pytest.mark.parametrize("points", [1, 3, 6])
def test_the_grid_goes_where_plain_loops_go(points: int) -> None:
    config = SearchConfig(algorithm="Grid", population_size=points)
    algorithm = GRID.build(config, SOLUTION)
    params, first = GRID.params(config, algorithm), jnp.float32(loss(np.zeros(3)))
    state = GRID.start(algorithm, jax.random.key(0), SOLUTION, fitness=first, params=params)
    steps = Strategy(GRID, algorithm).num_generations(3)
    assert steps == 3 * 3
    for _ in range(steps):
        population, state = algorithm.ask(jax.random.key(0), state, params)
        tried = np.concatenate([np.asarray(population["a"])[:, 0], np.asarray(population["b"])], axis=1)
        fitness = jnp.asarray([loss(x) for x in tried], jnp.float32)
        state, _ = algorithm.tell(jax.random.key(0), population, fitness, state, params)
    found: Any = unravel(algorithm, state.best_solution)
    want = sweep_loop(np.zeros(3), 3, points, 4.0)
    np.testing.assert_allclose(np.concatenate([found["a"][0], found["b"]]), want, atol=1e-5)
    assert loss(want) < loss(np.zeros(3))


def test_a_failed_evaluation_moves_nothing() -> None:
    algorithm = Grid(2, SOLUTION)
    params = algorithm.default_params
    key, fitness = jax.random.key(0), jnp.float32(1.0)
    state = GRID.start(algorithm, key, SOLUTION, fitness=fitness, params=params)
    population, state = algorithm.ask(jax.random.key(0), state, params)
    state, _ = algorithm.tell(jax.random.key(0), population, jnp.full(2, jnp.nan), state, params)
    np.testing.assert_array_equal(state.population, np.zeros((1, 3)))
