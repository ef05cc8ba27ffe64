from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evolq_jax.search.algorithms.evolq import EvolQ, Mutation, Replacement, State

POOL, DRAWN = 15, 10


def evolq(children: int = 1, size: int = 4, **changes: Any) -> EvolQ:
    settings: dict[str, Any] = {"pool_size": POOL, "tournament_size": DRAWN} | changes
    return EvolQ(children, {"w": jnp.zeros((1, size))}, **settings)


def pool_state(algorithm: EvolQ, members: jnp.ndarray, fitness: jnp.ndarray) -> State:
    population = {"w": members[:, None, :]}
    return algorithm.init(jax.random.key(0), population, fitness, algorithm.default_params)


def test_parents_win_tournaments_as_often_as_the_best_of_ten_draws() -> None:
    """P(member of rank r wins) = P(all draws at r or worse) - P(all draws worse)."""
    children = 20_000
    algorithm = evolq(children, size=1)
    order = np.random.default_rng(0).permutation(POOL)
    state = pool_state(algorithm, jnp.arange(1.0, POOL + 1)[:, None], jnp.asarray(order, jnp.float32))
    params = algorithm.default_params.replace(epsilon=0.0)
    population, _ = algorithm.ask(jax.random.key(1), state, params)
    winners = np.asarray(population["w"]).ravel().astype(int) - 1
    found = np.bincount(order[winners], minlength=POOL) / children
    ranks = np.arange(POOL)
    expected = ((POOL - ranks) / POOL) ** DRAWN - ((POOL - ranks - 1) / POOL) ** DRAWN
    assert np.all(np.abs(found - expected) < 5 * np.sqrt(expected * (1 - expected) / children) + 1e-4)


@pytest.mark.parametrize("mutation", ["absolute", "relative"])
def test_mutations_fill_their_bounds(mutation: Mutation) -> None:
    children = 2000
    parent = np.array([1e-3, 0.5, 3.0, 20.0], np.float32)
    algorithm = evolq(children, mutation=mutation)
    state = pool_state(algorithm, jnp.tile(parent, (POOL, 1)), jnp.zeros(POOL))
    params = algorithm.default_params.replace(epsilon=0.01)
    population, _ = algorithm.ask(jax.random.key(2), state, params)
    child = np.asarray(population["w"])[:, 0]
    step = (child - parent) / (parent if mutation == "relative" else 1.0)
    if mutation == "absolute":  # the smallest is reflected at zero
        assert child[:, 0].min() >= 0
        assert child[:, 0].max() > 0.0105
        step = step[:, 1:]
    assert np.abs(step).max() < 0.01 * (1 + 1e-4)
    np.testing.assert_allclose(step.mean(0), 0, atol=6 * 0.01 / np.sqrt(3 * children))
    np.testing.assert_allclose(step.std(0), 0.01 / np.sqrt(3), rtol=0.1)
    assert np.abs(np.corrcoef(step.T) - np.eye(step.shape[1])).max() < 0.15  # every scale has its own


@pytest.mark.parametrize("mutation", ["absolute", "relative"])
def test_scales_stay_positive_whatever_the_step(mutation: Mutation) -> None:
    algorithm = evolq(500, mutation=mutation)
    state = pool_state(algorithm, jnp.full((POOL, 4), 0.1), jnp.zeros(POOL))
    population, _ = algorithm.ask(jax.random.key(0), state, algorithm.default_params.replace(epsilon=3.0))
    assert float(population["w"].min()) >= 0


def tell(algorithm: EvolQ, state: State, members: jnp.ndarray, fitness: list[float]) -> State:
    """The state after children with these (constant) scales and fitness."""
    children = {"w": jnp.broadcast_to(members[:, None, None], (len(fitness), 1, 4))}
    params = algorithm.default_params
    return algorithm.tell(jax.random.key(0), children, jnp.array(fitness), state, params)[0]


def released_pool(start: float, children: list[float]) -> list[list[float]]:
    """The released code: the child joins, the list is sorted, the last leaves."""
    pool, seen = [start] * POOL, []
    for fitness in children:
        pool = sorted([*pool, fitness])[:-1]
        seen.append(pool)
    return seen


@pytest.mark.parametrize("seed", range(3))
def test_the_pool_is_the_released_codes(seed: int) -> None:
    fitness = np.random.default_rng(seed).integers(0, 8, 25).astype(np.float32) / 4  # with many equals
    algorithm = evolq()
    state = pool_state(algorithm, jnp.zeros((POOL, 4)), jnp.full(POOL, 1.0))
    best = 1.0
    for number, (value, pool) in enumerate(zip(fitness, released_pool(1.0, fitness.tolist()), strict=True)):
        state = tell(algorithm, state, jnp.array([number + 1.0]), [float(value)])
        assert sorted(np.asarray(state.fitness).tolist()) == pool
        best = min(best, float(value))
        assert state.best_fitness == best
    # Members and fitness stayed together, and the best is remembered with its solution.
    for member, value in zip(np.asarray(state.population)[:, 0], np.asarray(state.fitness), strict=True):
        assert value == (1.0 if member == 0 else fitness[int(member) - 1])
    assert fitness[int(state.best_solution[0]) - 1] == best


def test_of_equally_bad_members_the_newest_leaves() -> None:
    algorithm = evolq(pool_size=2)
    state = pool_state(algorithm, jnp.zeros((2, 4)), jnp.ones(2))
    state = tell(algorithm, state, jnp.ones(1), [1.0])
    assert float(jnp.abs(state.population).max()) == 0
    assert state.born.tolist() == [0, 0]


@pytest.mark.parametrize(
    ("replacement", "pool"),
    [
        ("worst", [(0.5, 1), (1.0, 0), (2.0, 2)]),
        ("oldest", [(2.0, 2), (9.0, 2), (5.0, 1)]),
    ],
)
def test_who_leaves_the_pool(replacement: Replacement, pool: list[tuple[float, int]]) -> None:
    """A pool of three, two children at a time; `oldest` drops even the best, which is remembered."""
    algorithm = evolq(2, pool_size=3, replacement=replacement)
    state = pool_state(algorithm, jnp.zeros((3, 4)), jnp.array([1.0, 4.0, 3.0]))
    for fitness in ([5.0, 0.5], [2.0, 9.0]):
        state = tell(algorithm, state, jnp.zeros(2), fitness)
    assert sorted(zip(state.fitness.tolist(), state.born.tolist(), strict=True)) == sorted(pool)
    assert state.best_fitness == 0.5


def test_a_failed_evaluation_neither_wins_nor_stays() -> None:
    algorithm = evolq(2, pool_size=2)
    state = pool_state(algorithm, jnp.zeros((2, 4)), jnp.ones(2))
    state = tell(algorithm, state, jnp.ones(2), [float("nan"), 0.7])
    assert state.fitness.tolist() == [pytest.approx(0.7), 1.0]
    assert state.best_fitness == pytest.approx(0.7)
