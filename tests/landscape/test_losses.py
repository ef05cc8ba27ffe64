import jax.numpy as jnp
import numpy as np
import pytest

from evolq_jax.landscape.config import LOSSES
from evolq_jax.landscape.losses import LabelledLoss, Loss, all_losses, columns_of, make_losses
from evolq_jax.objective.logits import cosine, info_nce, kl, mse
from evolq_jax.objective.objective import Outputs, Teacher
from evolq_jax.objective.terms import Term
from evolq_jax.typing import Array

RNG = np.random.default_rng(0)
LOGITS, TEACHER = (jnp.asarray(RNG.standard_normal((12, 5)), jnp.float32) for _ in range(2))
LABELS = jnp.asarray(RNG.integers(0, 5, 12))
TEMPERATURES = (0.3, 3.0)
ALL = make_losses(LOSSES, batch_size=6, with_labels=True)


def values(losses: tuple[Loss, ...], labels: Array | None = LABELS) -> np.ndarray:
    found = all_losses(
        losses, Outputs(LOGITS), Teacher(TEACHER), labels=labels, temperatures=jnp.array(TEMPERATURES)
    )
    return np.asarray(found)


def names(losses: tuple[Loss, ...]) -> list[str]:
    return [column.name for column in columns_of(losses, TEMPERATURES)]


def test_every_loss_is_what_its_name_says() -> None:
    named = dict(zip(names(ALL), values(ALL), strict=True))
    p = np.exp(LOGITS) / np.exp(LOGITS).sum(1, keepdims=True)
    assert named["cross_entropy"] == pytest.approx(-np.log(p[np.arange(12), LABELS]).mean(), rel=1e-5)
    wrong = [int(np.argmax(row)) != label for row, label in zip(LOGITS, LABELS, strict=True)]
    assert named["error_rate"] == pytest.approx(np.mean(wrong))
    for temperature in TEMPERATURES:
        halves = [info_nce(LOGITS[part], TEACHER[part], temperature) for part in (slice(6), slice(6, 12))]
        assert named[f"info_nce_t{temperature:g}"] == pytest.approx(np.mean(halves), rel=1e-5)
    for fitness in (mse, cosine, kl):
        assert named[fitness.__name__] == pytest.approx(float(fitness(LOGITS, TEACHER)), rel=1e-5)


def test_the_order_is_that_of_the_names() -> None:
    losses = make_losses(("kl", "error_rate", "mse"), batch_size=6, with_labels=True)
    assert names(losses) == ["kl", "error_rate", "mse"]
    assert float(values(losses)[2]) == pytest.approx(float(mse(LOGITS, TEACHER)))


def test_without_labels_the_others_remain() -> None:
    rest = make_losses(LOSSES, batch_size=6, with_labels=False)
    assert [loss.name for loss in rest] == ["info_nce", "mse", "cosine", "kl"]
    assert tuple(loss.name for loss in ALL) == LOSSES
    assert values(rest, labels=None).shape == (5,)
    with pytest.raises(ValueError, match="'cross_entropy' needs labels"):
        values(ALL, labels=None)


def test_columns_have_units() -> None:
    units = dict(columns_of(ALL, TEMPERATURES))
    assert [units[c] for c in ("kl", "info_nce_t0.3", "error_rate")] == ["nats", "1", "share of images"]
    (column,) = columns_of(make_losses(("features",), batch_size=6, with_labels=False), TEMPERATURES)
    assert column == ("features", "1")


def test_a_term_or_a_labelled_loss_is_passed_itself() -> None:
    """A contrastive term sees the images of a batch, another all at once."""

    def largest(student: Array, teacher: Array) -> Array:
        return jnp.abs(student - teacher).max()

    def confidence(logits: Array, labels: Array) -> Array:
        return jnp.take_along_axis(logits, labels[:, None], axis=-1).mean()

    given = (
        Term("by batch", "", largest, contrastive=True),
        Term("largest", "", largest),
        LabelledLoss("confidence", confidence, "logits"),
    )
    found = values(make_losses(given, batch_size=6, with_labels=True))
    differences = np.abs(LOGITS - TEACHER)
    want = [np.mean([differences[:6].max(), differences[6:].max()]), differences.max()]
    np.testing.assert_allclose(found[:2], want, rtol=1e-6)
    assert found[2] == pytest.approx(np.mean(np.asarray(LOGITS)[np.arange(12), LABELS]), rel=1e-5)
    assert names(make_losses(given, batch_size=6, with_labels=False)) == ["by batch", "largest"]


def test_one_output_is_the_log_odds_of_the_second_class() -> None:
    logits, labels = jnp.array([[2.0], [-1.0], [0.5]]), jnp.array([1, 1, 0])
    losses = make_losses(LOSSES, batch_size=3, with_labels=True, with_directions=False)
    assert [loss.name for loss in losses] == ["cross_entropy", "error_rate", "mse", "kl"]
    likelihood = [1 / (1 + np.exp(-2.0)), 1 / (1 + np.exp(1.0)), 1 - 1 / (1 + np.exp(-0.5))]
    outputs, teacher = Outputs(logits), Teacher(logits - 1)
    found = all_losses(losses, outputs, teacher, labels=labels, temperatures=jnp.array(TEMPERATURES))
    np.testing.assert_allclose(found, np.array([-np.mean(np.log(likelihood)), 2 / 3, 1.0, 0.5]), rtol=1e-5)
