"""The losses of one point: terms of a fitness, each an objective of its own, and losses that need labels."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from evolq_jax.landscape.config import LossName
from evolq_jax.objective.objective import Objective, Outputs, Teacher
from evolq_jax.objective.terms import TERMS, Term, Weighted
from evolq_jax.typing import Array


def cross_entropy(logits: Array, labels: Array) -> Array:
    """Mean negative log-likelihood of the labels [B] under logits [B, C], in nats."""
    log_p = jax.nn.log_softmax(_of_classes(logits), axis=-1)
    return -jnp.mean(jnp.take_along_axis(log_p, labels[:, None], axis=-1))


def error_rate(logits: Array, labels: Array) -> Array:
    """Share of images [B] whose most likely class is not the label. Of equal classes the lower one counts."""
    return jnp.mean(jnp.argmax(_of_classes(logits), axis=-1) != labels)


def _of_classes(logits: Array) -> Array:
    """Logits [B, C]. One output (C = 1) is the log odds of the second of two classes: [B, 2]."""
    return jnp.pad(logits, ((0, 0), (1, 0))) if logits.shape[-1] == 1 else logits


@dataclass(frozen=True)
class LabelledLoss:
    """A loss that needs labels: `function` is `(logits [B, C], labels [B]) -> scalar`."""

    name: str
    function: Callable[[Array, Array], Array]
    unit: str


LABELLED = {
    loss.name: loss
    for loss in (
        LabelledLoss("cross_entropy", cross_entropy, "nats"),
        LabelledLoss("error_rate", error_rate, "share of images"),
    )
}
Loss = Objective | LabelledLoss


class Column(NamedTuple):
    """One number of a point."""

    name: str
    unit: str


def make_losses(
    chosen: Sequence[LossName | Term | LabelledLoss],
    *,
    batch_size: int,
    with_labels: bool,
    with_directions: bool = True,
) -> tuple[Loss, ...]:
    """The losses that can be computed: without those that need labels or directions where there are none.

    Args:
      chosen: names, or the things themselves.
      batch_size: of losses that compare the images of a batch; others see all images as one batch.
      with_labels: whether the images have labels.
      with_directions: whether logits have directions: one output has none.
    """
    known = TERMS | LABELLED
    losses: list[Loss] = []
    for given in chosen:
        found = known[given] if isinstance(given, str) else given
        if isinstance(found, Term) and found.directions and not with_directions:
            continue
        if isinstance(found, Term):
            losses.append(Objective((Weighted(1.0, found),), batch_size if found.contrastive else None))
        elif with_labels:
            losses.append(found)
    return tuple(losses)


def takes_temperature(loss: Loss) -> bool:
    """Whether a loss has a value for each temperature."""
    return isinstance(loss, Objective) and any("temperature" in term.takes for _, term in loss.terms)


def columns_of(losses: Sequence[Loss], temperatures: Sequence[float]) -> tuple[Column, ...]:
    """The numbers of `all_losses`; infoNCE's carry their temperature, as `info_nce_t3`."""
    columns: list[Column] = []
    for loss in losses:
        unit = loss.terms[0].term.unit if isinstance(loss, Objective) else loss.unit
        names = [f"{loss.name}_t{t:g}" for t in temperatures] if takes_temperature(loss) else [loss.name]
        columns += [Column(name, unit) for name in names]
    return tuple(columns)


def joint_objective(losses: Sequence[Loss]) -> Objective:
    """One objective that reads whatever the losses read."""
    return Objective(tuple(term for loss in losses if isinstance(loss, Objective) for term in loss.terms))


def all_losses(
    losses: Sequence[Loss], outputs: Outputs, teacher: Teacher, *, labels: Array | None, temperatures: Array
) -> Array:
    """The losses in the order of `columns_of`: [columns].

    Args:
      losses: which (static).
      outputs: of the quantized network on B images, whole batches of each loss.
      teacher: what is imitated, on the same images.
      labels: int32 [B]; None only where no loss needs them.
      temperatures: of infoNCE [temperatures] (traced).

    Raises:
      ValueError: a loss needs features or labels that are not there.
    """
    values: list[Array] = []
    for loss in losses:
        if isinstance(loss, LabelledLoss):
            if outputs.logits is None or labels is None:
                raise ValueError(f"the loss '{loss.name}' needs labels")
            values.append(loss.function(outputs.logits, labels))
        elif takes_temperature(loss):
            values += [loss(outputs, teacher, temperature) for temperature in temperatures]
        else:
            values.append(loss(outputs, teacher))
    return jnp.stack(values)
