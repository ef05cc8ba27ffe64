"""Scores of a quantized network, and intervals for the difference of two networks."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import numpy as np

from evolq_jax.objective.logits import info_nce, kl_per_image

PER_IMAGE = ("top1", "top5", "agreement", "kl")
CONTRASTIVE_BATCH = 100  # as in the paper's calibration
CHUNK_IMAGES = 10_000  # ranked at once
TOP = 5

_kl_per_image, _batch_info_nce = jax.jit(kl_per_image), jax.jit(info_nce)


@dataclass(frozen=True)
class Interval:
    """A mean and its confidence interval; without ends where one number is all there is."""

    mean: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Scores:
    """How good one network is on the evaluation images. Accuracies are None where there are no labels.

    Attributes:
      top1: share of images whose label is the most likely class.
      top5: share of images whose label is among the five most likely classes. None for networks of fewer than
        six classes, where it would be 1.
      agreement: share of images with the same most likely class as the float network.
      kl: mean KL(float || this), nats; of one output, half the squared difference (`kl_per_image`).
      info_nce: mean over whole batches of `CONTRASTIVE_BATCH` consecutive images.
    """

    top1: float | None
    top5: float | None
    agreement: float
    kl: float
    info_nce: float


@dataclass(frozen=True)
class Delta:
    """What changed from one network to another. Accuracies are None where there are no labels."""

    top1: Interval | None
    top5: Interval | None
    agreement: Interval
    kl: Interval


class ImageScores(NamedTuple):
    """The per-image scores [B] of one network on the evaluation images. None: there are no labels."""

    top1: np.ndarray | None  # 1.0 where the label is the most likely class
    top5: np.ndarray | None
    agreement: np.ndarray  # 1.0 where the class is the float network's
    kl: np.ndarray  # KL(float || this), nats
    info_nce: float  # mean over whole batches of CONTRASTIVE_BATCH consecutive images


def score(logits: np.ndarray, teacher: np.ndarray, labels: np.ndarray | None) -> ImageScores:
    """Scores of logits [B, C] against the float network's logits [B, C] and, if given, labels [B].

    Among equal logits the class of the lower index comes first; a quantized head has many equal logits.
    Ranking takes several times the memory of the logits, so it works on CHUNK_IMAGES at a time.

    One output (C = 1) is the log odds of the second of two classes. If all outputs of the float network have
    the same sign and there are no labels, it is no log odds. Then the two classes are the lower and the
    higher half of these outputs.
    """
    middle = 0.0
    if teacher.shape[1] == 1 and labels is None and (teacher.min() > 0 or teacher.max() < 0):
        middle = float(np.median(teacher))
    chunks = [slice(start, start + CHUNK_IMAGES) for start in range(0, len(logits), CHUNK_IMAGES)]
    parts = [
        _score(logits[c], teacher[c], None if labels is None else labels[c], middle=middle) for c in chunks
    ]
    per_image = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return ImageScores(
        top1=per_image.get("top1"),
        top5=per_image.get("top5"),
        agreement=per_image["agreement"],
        kl=per_image["kl"],
        info_nce=_info_nce(logits, teacher),
    )


def _score(
    logits: np.ndarray, teacher: np.ndarray, labels: np.ndarray | None, *, middle: float
) -> dict[str, np.ndarray]:
    """The scores that each image has by itself."""
    ranked, wanted = (of_classes(each, middle) for each in (logits, teacher))
    order = np.argsort(-ranked, axis=1, kind="stable")[:, :TOP]
    found = {
        "agreement": (order[:, 0] == wanted.argmax(axis=1)).astype(np.float64),
        "kl": np.asarray(_kl_per_image(logits, teacher), np.float64),
    }
    if labels is not None:
        hits = order == labels[:, None]
        found["top1"] = hits[:, 0].astype(np.float64)
        if ranked.shape[1] > TOP:
            found["top5"] = hits.any(axis=1).astype(np.float64)
    return found


def of_classes(logits: np.ndarray, middle: float = 0.0) -> np.ndarray:
    """Logits [B, C]. Of one output: [B, 2], the second class above `middle`."""
    if logits.shape[1] > 1:
        return logits
    return np.concatenate([np.full_like(logits, middle), logits], axis=1)


def _info_nce(logits: np.ndarray, teacher: np.ndarray) -> float:
    """The infoNCE over whole batches only, because the loss depends on the number of negatives."""
    count = len(logits)
    size = min(CONTRASTIVE_BATCH, count)
    starts = range(0, count - size + 1, size)
    losses = [_batch_info_nce(logits[i : i + size], teacher[i : i + size]) for i in starts]
    return float(np.mean([float(loss) for loss in losses]))


def mean_scores(scores: ImageScores) -> Scores:
    """The means over all images."""
    means = {name: float(values.mean()) for name, values in _per_image(scores).items()}
    return Scores(
        top1=means.get("top1"),
        top5=means.get("top5"),
        agreement=means["agreement"],
        kl=means["kl"],
        info_nce=scores.info_nce,
    )


def paired_delta(
    init: ImageScores, final: ImageScores, *, seed: int, num_resamples: int = 10_000, level: float = 0.95
) -> Delta:
    """`final - init` with percentile bootstrap intervals (Efron 1979). Both have the same resampled images.

    Args:
      init: scores [B] of the first network.
      final: scores [B] of the second, on the same images.
      seed: of the resampling.
      num_resamples: how often B of the B images are drawn with replacement.
      level: of the interval, which goes from quantile `(1 - level) / 2` to `(1 + level) / 2`.
    """
    before, after = _per_image(init), _per_image(final)
    differences = np.stack([after[name] - before[name] for name in before], axis=1)
    low, high = _bootstrap(differences, seed, num_resamples, level)
    found = {
        name: Interval(float(differences[:, column].mean()), float(low[column]), float(high[column]))
        for column, name in enumerate(before)
    }
    return Delta(found.get("top1"), found.get("top5"), found["agreement"], found["kl"])


def _bootstrap(values: np.ndarray, seed: int, num_resamples: int, level: float) -> np.ndarray:
    """The ends [2, scores] of the interval for the means of values [B, scores]."""
    generator = np.random.Generator(np.random.PCG64(seed))
    count = len(values)
    means = np.empty((num_resamples, values.shape[1]))
    for row in means:  # counts of the drawn images, not the images: one vector in memory at a time
        row[:] = np.bincount(generator.integers(0, count, count), minlength=count) @ values / count
    return np.quantile(means, [(1 - level) / 2, (1 + level) / 2], axis=0)


def _per_image(scores: ImageScores) -> dict[str, np.ndarray]:
    """The scores that each image has by itself, without those that lack labels."""
    found = {name: getattr(scores, name) for name in PER_IMAGE}
    return {name: values for name, values in found.items() if values is not None}
