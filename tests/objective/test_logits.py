import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evolq_jax.objective.logits import (
    centred_cosine,
    cosine,
    info_nce,
    kl,
    kl_per_image,
    mse,
    random_score,
    top_k_kl,
)

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


def test_one_output_is_compared_by_its_square() -> None:
    student, teacher = jnp.array([[1.0], [40.0]]), jnp.array([[0.5], [37.0]])
    np.testing.assert_allclose(kl_per_image(student, teacher), [0.125, 4.5])
    np.testing.assert_allclose([kl(student, teacher), top_k_kl(student, teacher)], 2.3125)
    assert jax.grad(kl)(student, teacher).all()


@pytest.mark.parametrize("classes", [1, 2, 5])
def test_random_scores_have_the_hessian_of_kl(classes: int) -> None:
    logits = jnp.asarray(TEACHER[:1, :classes])
    draws = jax.random.normal(jax.random.key(0), (20_000, 1, classes))
    g = jax.vmap(lambda v: jax.grad(random_score)(logits, v))(draws)[:, 0]
    hessian = jax.hessian(lambda student: kl(student, logits))(logits)[0, :, 0, :]
    np.testing.assert_allclose(g.T @ g / len(g), hessian, atol=0.02)


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
