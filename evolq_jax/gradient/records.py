"""What a descent says of itself: its evaluations, where it stands between two steps, its result."""

from typing import NamedTuple

import numpy as np

from evolq_jax.gradient.loss import Theta
from evolq_jax.quant.qparams import QParams
from evolq_jax.typing import Array


class Evaluation(NamedTuple):
    """The quantized network at one time of the descent; a line of `log.jsonl`."""

    step: int
    candidate_images: int  # spent so far
    fitness: float  # on the images descended on
    held_out_fitness: float | None
    best_fitness: float
    seconds: float


class Position(NamedTuple):
    """Where a descent stands between two steps: with the descent's arguments, all that it needs to go on.

    Keys and mini-batches are drawn from the descent's key and the step's number, so neither is held.
    """

    theta: Theta
    optimizer: tuple[Array, ...]  # the leaves of its state, so that no type of optax is in a file
    best: QParams  # of what was evaluated
    fitness: float = np.inf  # at `best`, on the images descended on
    held_out_fitness: float = np.inf
    start_fitness: float = np.inf
    step: int = 0
    spent: int = 0  # candidate-images; nothing before the start is evaluated
    evaluated: int = 0  # what was spent at the last evaluation
    seconds: float = 0.0

    @property
    def number(self) -> int:
        """Which of the descent's positions this is."""
        return self.step


class Descent(NamedTuple):
    """The scales found, and the fitness they started and ended with."""

    qparams: QParams
    start_fitness: float
    fitness: float
    steps: int
    candidate_images: int
    seconds: float
