import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evolq_jax.errors import UserError
from evolq_jax.objective.fitness import (
    FITNESS,
    Term,
    batched,
    centred_cosine,
    cosine,
    info_nce,
    kl,
    kl_per_image,
    make_fitness,
    mse,
    parse_fitness,
    relative_error,
    top_k_kl,
)
from evolq_jax.typing import Array

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


def top_k_kl_loop(student: np.ndarray, teacher: np.ndarray, k: int) -> float:
    total = 0.0
    for s, t in zip(student.astype(np.float64), teacher.astype(np.float64), strict=True):
        q, p = np.exp(s) / np.exp(s).sum(), np.exp(t) / np.exp(t).sum()
        best = sorted(range(len(p)), key=lambda c, p=p: -p[c])[:k]
        pairs = [(p[c], q[c]) for c in best]
        pairs.append((1 - sum(a for a, _ in pairs), 1 - sum(b for _, b in pairs)))
        total += sum(a * np.log(a / b) for a, b in pairs)
    return total / len(student)


def test_top_k_kl_is_the_loop_and_bounded_by_kl() -> None:
    student, teacher = jnp.asarray(STUDENT), jnp.asarray(TEACHER)
    whole = float(kl(student, teacher))
    for k in (1, 3, 6):
        got = float(top_k_kl(student, teacher, k))
        assert got == pytest.approx(top_k_kl_loop(STUDENT, TEACHER, k), rel=1e-4)
        assert got <= whole * (1 + 1e-5)
    assert got == pytest.approx(whole, rel=1e-5)  # the sixth of seven leaves one class over
    assert float(top_k_kl(student, teacher, 99)) == whole


def test_centred_cosine_sees_only_what_tells_images_apart() -> None:
    student, teacher = jnp.asarray(STUDENT), jnp.asarray(TEACHER)
    s, t = STUDENT - STUDENT.mean(0), TEACHER - TEACHER.mean(0)
    cosines = (s * t).sum(1) / np.linalg.norm(s, axis=1) / np.linalg.norm(t, axis=1)
    np.testing.assert_allclose(centred_cosine(student, teacher), 1 - cosines.mean(), rtol=1e-5)
    shifted = student + 10.0 * RNG.standard_normal(7).astype(np.float32)
    np.testing.assert_allclose(centred_cosine(shifted, teacher), centred_cosine(student, teacher), rtol=1e-4)
    assert abs(float(cosine(shifted, teacher) - cosine(student, teacher))) > 1e-2


def test_a_token_s_error_counts_by_its_own_size() -> None:
    wanted = RNG.standard_normal((2, 3, 5)).astype(np.float32)
    wanted[0, 0] *= 1000  # a massive activation
    wanted[1, 2] = 0  # a dead token: not divided by zero
    output = wanted + 0.1 * RNG.standard_normal(wanted.shape).astype(np.float32)
    sizes = (wanted.astype(np.float64) ** 2).mean(-1)
    floor = 1e-3 * sizes.mean()
    errors = ((output.astype(np.float64) - wanted) ** 2).mean(-1)
    want = [np.mean([errors[i, n] / max(sizes[i, n], floor) for n in range(3)]) for i in range(2)]
    np.testing.assert_allclose(relative_error(jnp.asarray(output), jnp.asarray(wanted)), want, rtol=1e-4)


def worst(student: Array, teacher: Array) -> Array:
    """A user's own."""
    return jnp.abs(student - teacher).max()


def rows(student: Array, teacher: Array) -> Array:
    return jnp.abs(student - teacher).max(-1)


def test_sums_of_terms_and_functions_of_a_user() -> None:
    student, teacher = jnp.asarray(STUDENT), jnp.asarray(TEACHER)
    assert parse_fitness("kl + 0.5*local") == (Term(1.0, "kl"), Term(0.5, "local"))
    got = make_fitness("2*info_nce+ 0.25 * worst +top_k_kl", 0.5, top_k=2, functions=(worst,))(
        student, teacher
    )
    want = 2 * info_nce_loop(STUDENT, TEACHER, 0.5) + 0.25 * np.abs(STUDENT - TEACHER).max()
    np.testing.assert_allclose(got, want + top_k_kl_loop(STUDENT, TEACHER, 2), rtol=1e-5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kl + 0.5*locl", "unknown fitness 'locl'; did you mean 'local'"),
        ("-1*kl", "the weight '-1' of 'kl' is no positive number"),
        ("x*kl", "the weight 'x' of 'kl' is no positive number"),
        ("kl + ", "unknown fitness ''"),
        ("kl + local", "'local' is known to the block-wise search only"),
        ("kl + features", "'features' is no function of logits"),
        ("rows", "fitness 'rows' must give one number, not an array of shape .12,."),
    ],
)
def test_fitness_that_means_nothing_is_refused(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_fitness(text, functions=(rows,))(jnp.asarray(STUDENT), jnp.asarray(TEACHER))


def test_a_function_may_not_take_another_term_s_name() -> None:
    def kl(student: Array, teacher: Array) -> Array:
        return worst(student, teacher)

    with pytest.raises(UserError, match="two terms of a fitness have one name"):
        make_fitness("kl", functions=(kl,))


@pytest.mark.parametrize("name", FITNESS)
def test_fitness_of_a_dead_network_is_finite(name: str) -> None:
    dead = jnp.zeros((4, 7))
    assert bool(jnp.isfinite(make_fitness(name)(dead, jnp.asarray(TEACHER[:4]))))
