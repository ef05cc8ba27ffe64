"""What of a descent moves, and what it says of itself: evaluations, steps, its end."""

from typing import NamedTuple

import jax
import numpy as np

from evolq_jax.gradient.problem import Problem
from evolq_jax.gradient.theta import Theta, encode
from evolq_jax.quant.qparams import QParams
from evolq_jax.typing import Array


class Point(NamedTuple):
    """Where the optimiser is: what it moves, and what it remembers."""

    theta: Theta
    optimizer: tuple[Array, ...]  # the leaves of its state, so that no type of optax is in a file


class State(NamedTuple):
    """Where a descent stands between two steps: beside the problem and its data all that it needs to go on.

    A pytree of arrays and numbers. Mini-batches and SPSA's signs are drawn from `key` and the step's number.
    """

    point: Point
    key: Array
    best: QParams  # of what was evaluated
    fitness: float = np.inf  # at `best`, on the images searched on
    held_out_fitness: float = np.inf
    start_fitness: float = np.inf
    steps: int = 0
    spent: int = 0  # candidate-images; 0 before the start is evaluated
    evaluated: int = 0  # what had been spent after the last evaluation
    seconds: float = 0.0

    @property
    def number(self) -> int:
        """Grows from each state that is saved to the next."""
        return self.steps


def init(problem: Problem, start: QParams, key: Array) -> State:
    """Before the start is evaluated.

    Args:
      problem: what descends.
      start: all scales where the descent begins.
      key: PRNG key; consumed.
    """
    theta = encode(problem.loss, start)
    return State(Point(theta, tuple(jax.tree.leaves(problem.optimizer.init(theta)))), key, start)


def can_step(problem: Problem, state: State) -> bool:
    """Whether the budget pays for a step and its evaluation."""
    return state.spent + problem.step_cost + problem.num_images <= problem.budget


def is_due(problem: Problem, state: State) -> bool:
    """Whether the network is evaluated after this step: every few steps, and after the last one.

    A line search may have spent more than there was. Then what it found does not count.
    """
    pays = state.spent + problem.num_images <= problem.budget
    return pays and (state.steps % problem.config.evaluate_every == 0 or not can_step(problem, state))


class Evaluation(NamedTuple):
    """The quantized network at one time of the descent; a line of `log.jsonl`."""

    step: int
    candidate_images: int  # spent so far
    fitness: float  # on the images searched on
    held_out_fitness: float | None
    best_fitness: float
    seconds: float  # since the descent began


class Step(NamedTuple):
    """A step has ended (or the start is evaluated), and the descent stands here."""

    state: State


class DescentEnd(NamedTuple):
    """A descent is over: the scales found, and the fitness they started and ended with."""

    qparams: QParams
    start_fitness: float
    fitness: float
    steps: int
    candidate_images: int
    seconds: float


def end_of(state: State) -> DescentEnd:
    """What a descent has found so far."""
    return DescentEnd(
        qparams=state.best,
        start_fitness=state.start_fitness,
        fitness=state.fitness,
        steps=state.steps,
        candidate_images=state.spent,
        seconds=state.seconds,
    )
