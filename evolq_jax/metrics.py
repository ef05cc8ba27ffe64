"""How good a quantized network is, and how sure one can be that it got better."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from evolq_jax.fitness import info_nce, kl_per_image

NEEDS_LABELS = ("top1", "top5")
CONTRASTIVE_BATCH = 100  # as in the paper's calibration


class Scores(NamedTuple):
    """Per-image outcomes [B] of one network on the evaluation images; None where there are no labels."""

    top1: np.ndarray | None  # 1.0 where the label is the most likely class
    top5: np.ndarray | None
    agreement: np.ndarray  # 1.0 where the class is the float network's
    kl: np.ndarray  # KL(float || this), nats
    info_nce: float  # mean over whole batches of CONTRASTIVE_BATCH consecutive images


def score(logits: np.ndarray, teacher: np.ndarray, labels: np.ndarray | None) -> Scores:
    """Per-image scores of logits [B, C] against the float network's and, where given, labels [B]."""
    top5 = np.argpartition(-logits, min(5, logits.shape[1] - 1), axis=1)[:, :5]
    best = logits.argmax(axis=1)
    return Scores(
        top1=None if labels is None else (best == labels).astype(np.float64),
        top5=None if labels is None else (top5 == labels[:, None]).any(axis=1).astype(np.float64),
        agreement=(best == teacher.argmax(axis=1)).astype(np.float64),
        kl=np.asarray(kl_per_image(jnp.asarray(logits), jnp.asarray(teacher)), np.float64),
        info_nce=_info_nce(logits, teacher),
    )


def _info_nce(logits: np.ndarray, teacher: np.ndarray) -> float:
    """Over whole batches only: the loss depends on the number of negatives."""
    count = len(logits)
    size = min(CONTRASTIVE_BATCH, count)
    starts = range(0, count - size + 1, size)
    losses = [info_nce(jnp.asarray(logits[i : i + size]), jnp.asarray(teacher[i : i + size])) for i in starts]
    return float(np.mean([float(loss) for loss in losses]))


def summary(scores: Scores) -> dict[str, float | None]:
    """Means, as they stand in `result.json`; fractions between 0 and 1, KL in nats."""
    means = {name: None if value is None else float(np.mean(value)) for name, value in _per_image(scores).items()}
    return means | {"info_nce": scores.info_nce}


def paired_delta(
    init: Scores, final: Scores, seed: int, num_resamples: int = 10_000, level: float = 0.95
) -> dict[str, dict[str, float] | None]:
    """`final - init` with percentile bootstrap intervals, resampling images (the same for both).

    Each entry is `{"mean", "low", "high"}`; None where there are no labels.
    """
    generator = np.random.Generator(np.random.PCG64(seed))
    count = len(init.kl)
    # Resampled means as products with image counts: [resamples, B], drawn once for all scores.
    weights = generator.multinomial(count, np.full(count, 1.0 / count), size=num_resamples) / count
    before, after = _per_image(init), _per_image(final)
    result: dict[str, dict[str, float] | None] = {}
    for name, start in before.items():
        end = after[name]
        if start is None or end is None:
            result[name] = None
            continue
        difference = end - start
        low, high = np.quantile(weights @ difference, [(1 - level) / 2, (1 + level) / 2])
        result[name] = {"mean": float(difference.mean()), "low": float(low), "high": float(high)}
    return result


def _per_image(scores: Scores) -> dict[str, Any]:
    return {name: value for name, value in scores._asdict().items() if name != "info_nce"}
