"""How far two right implementations of a quantized network differ: nothing is held closer than that."""

from typing import NamedTuple

import jax
import numpy as np

from evolq_jax.integers.model import IntegerModel
from evolq_jax.verbs.verify import moved


class Distance(NamedTuple):
    agreement: float
    error: float  # mean, in deviations of the logits


def distance(found: np.ndarray, wanted: np.ndarray) -> Distance:
    agreement = (found.argmax(-1) == wanted.argmax(-1)).mean()
    return Distance(float(agreement), float(np.abs(found - wanted).mean() / wanted.std()))


def floor(model: IntegerModel, images: jax.Array) -> tuple[np.ndarray, Distance]:
    """The model's logits, and how far those of `moved` are from them."""
    logits, others = (np.asarray(each(images)) for each in (model, moved(model)))
    return logits, distance(others, logits)
