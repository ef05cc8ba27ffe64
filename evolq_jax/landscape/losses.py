"""All losses of one point, computed from its logits."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from evolq_jax.landscape.config import WITH_LABELS, LossName
from evolq_jax.objective.fitness import FITNESS, batched, make_fitness
from evolq_jax.typing import Array

UNITS = {
    "cross_entropy": "nats",
    "error_rate": "share of images",
    "info_nce": "1",
    "mse": "squared logits",
    "cosine": "1",
    "kl": "nats",
    "features": "1",
}


def computable(losses: Sequence[LossName], *, with_labels: bool) -> tuple[LossName, ...]:
    """The losses that can be computed. Some need labels."""
    return tuple(loss for loss in losses if with_labels or loss not in WITH_LABELS)


def column_names(losses: Sequence[LossName], temperatures: Sequence[float]) -> tuple[str, ...]:
    """The names of the numbers of `all_losses`. infoNCE's names have the temperature: `info_nce_t3`."""
    names: list[str] = []
    for loss in losses:
        names += [f"info_nce_t{t:g}" for t in temperatures] if loss == "info_nce" else [loss]
    return tuple(names)


def unit_of(column: str) -> str:
    """The unit of a column."""
    return UNITS["info_nce" if column.startswith("info_nce") else column]


def cross_entropy(logits: Array, labels: Array) -> Array:
    """Mean negative log-likelihood of the labels [B] under logits [B, C], in nats."""
    return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(logits, axis=-1), labels[:, None], axis=-1))


def error_rate(logits: Array, labels: Array) -> Array:
    """Share of images [B] whose most likely class is not the label. Of equal classes the lower one counts."""
    return jnp.mean(jnp.argmax(logits, axis=-1) != labels)


def all_losses(
    losses: Sequence[LossName],
    batch_size: int,
    logits: Array,
    teacher: Array,
    labels: Array | None,
    temperatures: Array,
    features_error: Array | None = None,
) -> Array:
    """The losses in the order of `column_names`: [columns].

    Args:
      losses: the losses to compute (static).
      batch_size: infoNCE's contrastive batch (static); B is a multiple of it where infoNCE is asked for.
      logits: of the quantized network [B, C].
      teacher: logits [B, C] of the network that is imitated.
      labels: int32 [B]; None only if no loss needs them.
      temperatures: of infoNCE [temperatures] (traced).
      features_error: the loss `features`; None only if it is not asked for.
    """
    columns: list[Array] = []
    for loss in losses:
        if loss == "info_nce":
            for temperature in temperatures:
                columns.append(batched(make_fitness(loss, temperature), logits, teacher, batch_size))
        elif loss in FITNESS:
            columns.append(FITNESS[loss](logits, teacher))
        elif loss == "features" and features_error is not None:
            columns.append(features_error)
        elif labels is not None:
            columns.append({"cross_entropy": cross_entropy, "error_rate": error_rate}[loss](logits, labels))
    return jnp.stack(columns)
