"""How far two right implementations of a quantized network differ: nothing is held closer than that."""

from dataclasses import replace
from typing import NamedTuple

import jax
import numpy as np

from evolq_jax.integers.model import IntegerModel

LAST_BIT = np.float32(1 + 1.2e-7)


class Distance(NamedTuple):
    agreement: float
    error: float  # mean, in deviations of the logits


def distance(found: np.ndarray, wanted: np.ndarray) -> Distance:
    agreement = (found.argmax(-1) == wanted.argmax(-1)).mean()
    return Distance(float(agreement), float(np.abs(found - wanted).mean() / wanted.std()))


def moved(model: IntegerModel) -> IntegerModel:
    """The model with every scale moved in its last bit."""
    qparams = {k: numbers._replace(scale=numbers.scale * LAST_BIT) for k, numbers in model.qparams.items()}
    return replace(model, qparams=qparams)


def floor(model: IntegerModel, images: jax.Array) -> tuple[np.ndarray, Distance]:
    """The model's logits, and how far those of `moved` are from them."""
    logits, others = (np.asarray(each(images)) for each in (model, moved(model)))
    return logits, distance(others, logits)
