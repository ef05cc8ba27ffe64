import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evolq_jax.errors import UserError
from evolq_jax.fitness import batched, cosine, info_nce, kl, kl_per_image, make_fitness, mse

RNG = np.random.default_rng(0)
STUDENT, TEACHER = (3 * RNG.standard_normal((12, 7)).astype(np.float32) for _ in range(2))


def info_nce_loop(student: np.ndarray, teacher: np.ndarray, temperature: float) -> float:
    student, teacher = (
        x / np.linalg.norm(x, axis=1, keepdims=True) for x in map(np.float64, (student, teacher))
    )
    total = 0.0
    for i in range(len(student)):
        similarities = [float(student[i] @ teacher[j]) / temperature for j in range(len(teacher))]
        total += np.log(sum(np.exp(s) for s in similarities)) - similarities[i]
    return 2 * temperature * total / len(student)


def kl_loop(student: np.ndarray, teacher: np.ndarray) -> list[float]:
    found: list[float] = []
    for s, t in zip(student.astype(np.float64), teacher.astype(np.float64), strict=True):
        q, p = np.exp(s) / np.exp(s).sum(), np.exp(t) / np.exp(t).sum()
        found.append(float(sum(p * np.log(p / q))))
    return found


@pytest.mark.parametrize("temperature", [0.1, 1.0, 3.0])
def test_info_nce_is_the_double_loop(temperature: float) -> None:
    got = info_nce(jnp.asarray(STUDENT), jnp.asarray(TEACHER), temperature)
    np.testing.assert_allclose(got, info_nce_loop(STUDENT, TEACHER, temperature), rtol=1e-5)


def test_info_nce_sees_directions_and_pairs_only() -> None:
    student, teacher = jnp.asarray(STUDENT), jnp.asarray(TEACHER)
    base = info_nce(student, teacher)
    lengths = jnp.asarray(RNG.uniform(0.1, 10, (12, 1)), jnp.float32)
    order = RNG.permutation(12)
    np.testing.assert_allclose(info_nce(student * lengths, teacher / lengths), base, rtol=1e-5)
    np.testing.assert_allclose(info_nce(student[order], teacher[order]), base, rtol=1e-5)
    assert abs(float(info_nce(student, teacher[order]) - base)) > 1e-2


def test_info_nce_prefers_the_teacher_itself() -> None:
    student, teacher = jnp.asarray(STUDENT), jnp.asarray(TEACHER)
    values = [float(info_nce(teacher + noise * student, teacher)) for noise in (0.0, 0.3, 1.0, 3.0)]
    assert values == sorted(values)
    assert info_nce(student[:1], teacher[:1]) == pytest.approx(0, abs=1e-6)  # no negatives, nothing to tell


def test_kl_is_the_loop_and_zero_for_the_teacher() -> None:
    student, teacher = jnp.asarray(STUDENT), jnp.asarray(TEACHER)
    np.testing.assert_allclose(kl_per_image(student, teacher), kl_loop(STUDENT, TEACHER), rtol=1e-4)
    np.testing.assert_allclose(kl(student, teacher), np.mean(kl_loop(STUDENT, TEACHER)), rtol=1e-4)
    np.testing.assert_allclose(kl(teacher + 5.0, teacher), 0, atol=1e-5)  # a shift of all logits says nothing
    assert abs(float(kl(student, teacher) - kl(teacher, student))) > 1e-2  # which of them leads matters


def test_mse_and_cosine() -> None:
    student, teacher = jnp.asarray(STUDENT), jnp.asarray(TEACHER)
    np.testing.assert_allclose(mse(student, teacher), ((STUDENT - TEACHER) ** 2).mean(), rtol=1e-5)
    cosines = [s @ t / np.linalg.norm(s) / np.linalg.norm(t) for s, t in zip(STUDENT, TEACHER, strict=True)]
    np.testing.assert_allclose(cosine(student, teacher), 1 - np.mean(cosines), rtol=1e-5)
    np.testing.assert_allclose(cosine(7 * teacher, teacher), 0, atol=1e-6)


def test_a_fitness_by_name_with_a_traced_temperature() -> None:
    student, teacher = jnp.asarray(STUDENT), jnp.asarray(TEACHER)
    run = jax.jit(lambda t: make_fitness("info_nce", t)(student, teacher))
    for temperature in (0.5, 3.0):
        np.testing.assert_allclose(run(temperature), info_nce_loop(STUDENT, TEACHER, temperature), rtol=1e-5)
    assert run._cache_size() == 1  # type: ignore[attr-defined]
    np.testing.assert_allclose(make_fitness("kl")(student, teacher), kl(student, teacher))
    with pytest.raises(UserError, match="unknown fitness 'infonce'; did you mean 'info_nce'"):
        make_fitness("infonce")


def test_batches_are_scored_apart_and_averaged() -> None:
    got = batched(make_fitness("info_nce"), jnp.asarray(STUDENT), jnp.asarray(TEACHER), 4)
    want = [info_nce_loop(STUDENT[i : i + 4], TEACHER[i : i + 4], 3.0) for i in (0, 4, 8)]
    np.testing.assert_allclose(got, np.mean(want), rtol=1e-5)
    whole = info_nce_loop(STUDENT, TEACHER, 3.0)
    assert abs(float(got) - whole) > 0.1


@pytest.mark.parametrize("name", ["info_nce", "cosine", "kl", "mse"])
def test_fitness_of_a_dead_network_is_finite(name: str) -> None:
    dead = jnp.zeros((4, 7))
    assert bool(jnp.isfinite(make_fitness(name)(dead, jnp.asarray(TEACHER[:4]))))
