from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evolq_jax.search.algorithms.one_plus_lambda import ONE_PLUS_LAMBDA, OnePlusLambda
from evolq_jax.search.config import SearchConfig

DIMS = 8
SOLUTION = {"w": jnp.full((1, DIMS), 0.5)}


def begin(algorithm: OnePlusLambda, density: float = 1.0) -> tuple[Any, Any]:
    params = ONE_PLUS_LAMBDA.params(SearchConfig(density=density), algorithm)
    key, fitness = jax.random.key(0), jnp.float32(1.0)
    return ONE_PLUS_LAMBDA.start(algorithm, key, SOLUTION, fitness=fitness, params=params), params


def steps_of(algorithm: OnePlusLambda, density: float = 1.0, sigma: float = 1.0) -> np.ndarray:
    """Children less their parent [children, DIMS]."""
    state, params = begin(algorithm, density)
    population, _ = algorithm.ask(jax.random.key(1), state.replace(sigma=sigma), params)
    return np.asarray(population["w"][:, 0] - SOLUTION["w"])


@pytest.mark.parametrize("density", [1.0, 0.25, 1e-6])
def test_children_move_a_share_of_the_coordinates_and_at_least_one(density: float) -> None:
    steps = steps_of(OnePlusLambda(4000, SOLUTION), density, sigma=0.3)
    moved = (steps != 0).mean(axis=1) * DIMS
    none = (1 - density) ** DIMS  # then one moves all the same
    assert moved.min() >= 1
    assert moved.mean() == pytest.approx(DIMS * density + none, rel=0.05)
    assert steps[steps != 0].std() == pytest.approx(0.3, rel=0.05)
    assert abs(steps.mean()) < 0.01


def test_antithetic_children_are_opposite() -> None:
    steps = steps_of(OnePlusLambda(6, SOLUTION, antithetic=True), density=0.5)
    np.testing.assert_allclose(steps[:3], -steps[3:], atol=1e-6)
    assert len({float(step.sum()) for step in steps}) == 6


@pytest.mark.parametrize(
    ("fitness", "factor"),
    [
        ([2.0, 3.0, 1.0, 9.0, 9.0], np.exp(-0.2)),  # as good is not better
        ([0.5, 3.0, 2.0, 9.0, 9.0], 1.0),
        ([0.1, 0.2, 0.3, 0.4, 0.5], np.exp(0.8)),
        ([np.nan, np.nan, np.nan, np.nan, 0.5], 1.0),
    ],
)
def test_the_best_survives_and_steps_grow_with_success(fitness: list[float], factor: float) -> None:
    """Five children of eight coordinates: the rate is 1."""
    algorithm = OnePlusLambda(5, SOLUTION)
    state, params = begin(algorithm)
    population, state = algorithm.ask(jax.random.key(1), state, params)
    state, _ = algorithm.tell(jax.random.key(2), population, jnp.asarray(fitness), state, params)
    assert float(state.sigma) == pytest.approx(factor, rel=1e-5)
    best = np.nanmin(fitness)
    assert float(state.fitness[0]) == pytest.approx(min(best, 1.0))
    want = np.asarray(population["w"])[np.nanargmin(fitness), 0] if best < 1 else np.full(DIMS, 0.5)
    np.testing.assert_array_equal(state.population[0], want)


def test_few_children_adapt_as_slowly_as_one_plus_one_steps() -> None:
    assert OnePlusLambda(1, SOLUTION).rate == pytest.approx(1 / 3)
    assert OnePlusLambda(2, SOLUTION).rate == pytest.approx(2 / 3)


def test_a_child_that_wins_leaves_its_own_step_size() -> None:
    algorithm = OnePlusLambda(4000, SOLUTION, step_size="self_adaptive")
    state, params = begin(algorithm)
    population, state = algorithm.ask(jax.random.key(1), state.replace(sigma=0.3), params)
    sigmas = np.asarray(state.child_sigmas)
    assert np.log(sigmas / 0.3).mean() == pytest.approx(0.0, abs=0.02)
    assert np.log(sigmas).std() == pytest.approx(DIMS**-0.5, rel=0.05)
    steps = np.asarray(population["w"][:, 0] - SOLUTION["w"]) / sigmas[:, None]
    assert steps[sigmas > 0.4].std() == pytest.approx(1.0, rel=0.05)
    assert steps[sigmas < 0.2].std() == pytest.approx(1.0, rel=0.05)
    for fitness, kept in ((0.5, sigmas[7]), (1.0, 0.3), (np.nan, 0.3)):  # as good is not better
        fitnesses = jnp.full(4000, 2.0).at[7].set(fitness)
        after, _ = algorithm.tell(jax.random.key(2), population, fitnesses, state, params)
        assert float(after.sigma) == pytest.approx(float(kept))


def test_opposite_children_have_one_step_size_and_it_shrinks_towards_an_optimum() -> None:
    algorithm = OnePlusLambda(8, SOLUTION, antithetic=True, step_size="self_adaptive")
    state, params = begin(algorithm)
    for generation in range(100):
        population, state = algorithm.ask(jax.random.key(generation), state, params)
        steps = np.asarray(population["w"][:, 0] - state.population)
        np.testing.assert_allclose(steps[:4], -steps[4:], atol=1e-6)
        np.testing.assert_array_equal(state.child_sigmas[:4], state.child_sigmas[4:])
        fitness = jnp.sum(population["w"] ** 2, axis=(1, 2))
        state, _ = algorithm.tell(jax.random.key(0), population, fitness, state, params)
    assert float(state.fitness[0]) < 0.01
    assert float(state.sigma) < 0.1
