import jax.numpy as jnp
import numpy as np
import pytest

from evolq_jax.landscape.config import LOSSES
from evolq_jax.landscape.losses import all_losses, column_names, computable, unit_of
from evolq_jax.objective.fitness import cosine, info_nce, kl, mse

RNG = np.random.default_rng(0)
LOGITS, TEACHER = (jnp.asarray(RNG.standard_normal((12, 5)), jnp.float32) for _ in range(2))
LABELS = jnp.asarray(RNG.integers(0, 5, 12))
TEMPERATURES = (0.3, 3.0)


def test_every_loss_is_what_its_name_says() -> None:
    found = all_losses(LOSSES, 6, LOGITS, TEACHER, LABELS, jnp.array(TEMPERATURES))
    named = dict(zip(column_names(LOSSES, TEMPERATURES), np.asarray(found), strict=True))
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
    losses = ("kl", "error_rate", "mse")
    found = all_losses(losses, 6, LOGITS, TEACHER, LABELS, jnp.array(TEMPERATURES))
    assert column_names(losses, TEMPERATURES) == losses
    assert float(found[2]) == pytest.approx(float(mse(LOGITS, TEACHER)))


def test_without_labels_the_others_remain() -> None:
    rest = computable(LOSSES, with_labels=False)
    assert rest == ("info_nce", "mse", "cosine", "kl")
    assert computable(LOSSES, with_labels=True) == LOSSES
    assert all_losses(rest, 6, LOGITS, TEACHER, None, jnp.array(TEMPERATURES)).shape == (5,)


def test_columns_have_units() -> None:
    assert [unit_of(c) for c in ("kl", "info_nce_t0.3", "error_rate")] == ["nats", "1", "share of images"]
    assert unit_of("features") == "1"


def test_the_features_error_is_handed_on() -> None:
    found = all_losses(
        ("features", "kl"), 6, LOGITS, TEACHER, None, jnp.array(TEMPERATURES), jnp.float32(0.3)
    )
    assert found.tolist() == pytest.approx([0.3, float(kl(LOGITS, TEACHER))])
