from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evolq_jax.errors import UserError
from evolq_jax.objective.activations import relative_error
from evolq_jax.objective.logits import kl
from evolq_jax.objective.objective import Objective, Outputs, Teacher, make_objective
from evolq_jax.objective.terms import TERMS, Term, Weighted, parse_fitness
from evolq_jax.typing import Array
from tests.objective.test_logits import STUDENT, TEACHER, info_nce_loop, top_k_kl_loop

OUTPUTS, WANTED = Outputs(jnp.asarray(STUDENT)), Teacher(jnp.asarray(TEACHER))
FEATURES, OWN = (np.random.default_rng(1).standard_normal((2, 12, 3, 5)).astype(np.float32) for _ in range(2))


def test_a_fitness_by_name_with_a_traced_temperature() -> None:
    run = jax.jit(lambda t: make_objective("info_nce")(OUTPUTS, WANTED, t))
    for temperature in (0.5, 3.0):
        np.testing.assert_allclose(run(temperature), info_nce_loop(STUDENT, TEACHER, temperature), rtol=1e-5)
    assert run._cache_size() == 1  # type: ignore[attr-defined]
    np.testing.assert_allclose(make_objective("kl")(OUTPUTS, WANTED), kl(OUTPUTS.logits, WANTED.logits))  # type: ignore[arg-type]
    with pytest.raises(UserError, match="unknown fitness 'infonce'; did you mean 'info_nce'"):
        make_objective("infonce")


def test_batches_are_scored_apart_and_averaged() -> None:
    got = make_objective("info_nce", batch_size=4)(OUTPUTS, WANTED)
    want = [info_nce_loop(STUDENT[i : i + 4], TEACHER[i : i + 4], 3.0) for i in (0, 4, 8)]
    np.testing.assert_allclose(got, np.mean(want), rtol=1e-5)
    whole = info_nce_loop(STUDENT, TEACHER, 3.0)
    assert abs(float(got) - whole) > 0.1


def worst(student: Array, teacher: Array) -> Array:
    """A user's own."""
    return jnp.abs(student - teacher).max()


def rows(student: Array, teacher: Array) -> Array:
    return jnp.abs(student - teacher).max(-1)


def test_sums_of_terms_and_functions_of_a_user() -> None:
    assert parse_fitness("kl + 0.5*local") == (Weighted(1.0, TERMS["kl"]), Weighted(0.5, TERMS["local"]))
    objective = make_objective("2*info_nce+ 0.25 * worst +top_k_kl", (worst,), top_k=2)
    want = 2 * info_nce_loop(STUDENT, TEACHER, 0.5) + 0.25 * np.abs(STUDENT - TEACHER).max()
    want += top_k_kl_loop(STUDENT, TEACHER, 2)
    np.testing.assert_allclose(objective(OUTPUTS, WANTED, 0.5), want, rtol=1e-5)
    assert objective.name == "2*info_nce+0.25*worst+top_k_kl"


def test_a_term_is_passed_itself() -> None:
    """A function of logits, or a record; equal objectives are equal arguments of a program."""
    want = np.abs(STUDENT - TEACHER).max()
    np.testing.assert_allclose(make_objective(worst)(OUTPUTS, WANTED), want)
    assert make_objective(worst, batch_size=4) == make_objective("worst", (worst,), batch_size=4)
    assert hash(make_objective("kl+features")) == hash(make_objective("kl + features"))

    def of_images(student: Array, teacher: Array) -> Array:
        return ((student - teacher) ** 2).mean((1, 2))

    mean = Term("mean", "the squared error", of_images, reads="features")
    outputs = OUTPUTS._replace(features=jnp.asarray(FEATURES[0]))
    teacher = WANTED._replace(features=jnp.asarray(FEATURES[1]))
    objective = make_objective("kl + 0.5*mean", (mean,))
    want = float(kl(jnp.asarray(STUDENT), jnp.asarray(TEACHER))) + 0.5 * np.mean(
        (FEATURES[0] - FEATURES[1]) ** 2
    )
    assert float(objective(outputs, teacher)) == pytest.approx(want, rel=1e-5)
    assert make_objective(mean).runs_all
    assert not make_objective(mean).reads("logits")


def test_activations_are_assembled_with_logits() -> None:
    objective = make_objective("kl + 0.5*features + 2*local")
    features, own = ([jnp.asarray(x) for x in pair] for pair in (FEATURES, OWN))
    outputs = OUTPUTS._replace(features=features[0], own_errors=objective.own_errors(*own))
    got = objective(outputs, WANTED._replace(features=features[1]))
    want = float(kl(jnp.asarray(STUDENT), jnp.asarray(TEACHER)))
    want += 0.5 * float(relative_error(*features).mean()) + 2 * float(relative_error(*own).mean())
    assert float(got) == pytest.approx(want, rel=1e-5)
    assert objective.whole == make_objective("kl+0.5*features")
    assert make_objective("local").whole == make_objective("kl")
    assert make_objective("mse").whole == make_objective("mse")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kl + 0.5*locl", "unknown fitness 'locl'; did you mean 'local'"),
        ("-1*kl", "the weight '-1' of 'kl' is no positive number"),
        ("x*kl", "the weight 'x' of 'kl' is no positive number"),
        ("kl + ", "unknown fitness ''"),
        ("rows", "fitness 'rows' must give one number, not an array of shape .12,."),
    ],
)
def test_fitness_that_means_nothing_is_refused(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_objective(text, (rows,))(OUTPUTS, WANTED)


def test_what_an_objective_reads_must_be_there() -> None:
    with pytest.raises(
        UserError, match="fitness 'kl\\+local': 'local' is known to the block-wise search only"
    ):
        make_objective("kl + local").check_whole()
    make_objective("kl + features").check_whole()
    with pytest.raises(ValueError, match="'kl\\+features' needs the teacher's features"):
        make_objective("kl + features")(OUTPUTS, WANTED)
    with pytest.raises(ValueError, match="'kl' needs logits"):
        make_objective("kl")(Outputs(), WANTED)


def test_errors_of_activations_are_one_for_each_image() -> None:
    whole = Term("whole", "", lambda student, teacher: jnp.abs(student - teacher).max(), reads="own_output")
    objective = Objective((Weighted(1.0, whole),))
    with pytest.raises(
        UserError, match=r"'whole' must give one number for each of 12 images, not .* shape \(\)"
    ):
        objective.own_errors(jnp.asarray(OWN[0]), jnp.asarray(OWN[1]))


def test_a_function_may_not_take_another_term_s_name() -> None:
    def kl(student: Array, teacher: Array) -> Array:
        return worst(student, teacher)

    with pytest.raises(UserError, match="two terms of a fitness have one name"):
        make_objective("kl", (kl,))


@pytest.mark.parametrize("name", [name for name, term in TERMS.items() if term.reads == "logits"])
def test_fitness_of_a_dead_network_is_finite(name: str) -> None:
    dead: Any = jnp.zeros((4, 7))
    assert bool(jnp.isfinite(make_objective(name)(Outputs(dead), Teacher(jnp.asarray(TEACHER[:4])))))
