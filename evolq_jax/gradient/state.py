"""The state of a descent, and the records that tell of it: evaluations, steps, the end."""

from functools import partial
from typing import NamedTuple

import jax
import numpy as np
import optax

from evolq_jax.gradient.problem import Problem, ScaleLoss
from evolq_jax.gradient.theta import Theta, encode
from evolq_jax.quant.qparams import QParams
from evolq_jax.typing import Array


class Point(NamedTuple):
    """Where the optimiser is."""

    theta: Theta  # what it moves
    optimizer: tuple[Array, ...]  # the leaves of its own state; without optax's types, a file can hold them


class State(NamedTuple):
    """Where a descent stands between two steps. With the problem and its data, a descent can go on from it.

    It is a pytree of arrays and numbers. A step draws its mini-batch and SPSA's signs from `key` and its own
    number.
    """

    point: Point
    key: Array
    best: QParams  # the best scales that were evaluated
    fitness: float = np.inf  # at `best`, on the images searched on
    held_out_fitness: float = np.inf  # at `best`; infinite where no images are held out
    start_fitness: float = np.inf
    steps: int = 0  # so far
    spent: int = 0  # candidate-images so far; 0 until the start is evaluated
    evaluated: int = 0  # `spent` at the end of the last evaluation
    seconds: float = 0.0  # since the descent began

    @property
    def number(self) -> int:
        """Grows from each state that is saved to the next."""
        return self.steps


def init(problem: Problem, start: QParams, key: Array) -> State:
    """The state in which a descent begins. Nothing is evaluated yet.

    Args:
      problem: what descends.
      start: the scales of all sites.
      key: PRNG key; consumed.
    """
    return State(_first_point(problem.loss, problem.optimizer, start), key, start)


@partial(jax.jit, static_argnames=("loss", "optimizer"))
def _first_point(loss: ScaleLoss, optimizer: optax.GradientTransformationExtraArgs, start: QParams) -> Point:
    """Where the optimiser begins: one program in place of one for each kind of leaf."""
    theta = encode(loss, start)
    return Point(theta, tuple(jax.tree.leaves(optimizer.init(theta))))


def can_step(problem: Problem, state: State) -> bool:
    """Whether the budget pays for one more step and its evaluation."""
    return state.spent + problem.step_cost + problem.num_images <= problem.budget


def is_due(problem: Problem, state: State) -> bool:
    """Whether the network is to be evaluated now: every few steps, and after the last one.

    A line search may have overrun the budget. Then what it found does not count.
    """
    pays = state.spent + problem.num_images <= problem.budget
    return pays and (state.steps % problem.config.evaluate_every == 0 or not can_step(problem, state))


class Evaluation(NamedTuple):
    """How good the quantized network is at one time of the descent; a line of `log.jsonl`."""

    step: int  # steps so far
    candidate_images: int  # spent so far
    fitness: float  # now, on the images searched on
    held_out_fitness: float | None  # now; None: no images are held out
    best_fitness: float  # of the best scales so far, on the images searched on
    seconds: float  # since the descent began


class Step(NamedTuple):
    """A step has ended, or the start has been evaluated."""

    state: State  # where the descent stands


class DescentEnd(NamedTuple):
    """A descent is over: what it found, and what it spent."""

    qparams: QParams
    start_fitness: float
    fitness: float
    steps: int
    candidate_images: int
    seconds: float


def end_of(state: State) -> DescentEnd:
    """What a descent has found and spent so far."""
    return DescentEnd(
        qparams=state.best,
        start_fitness=state.start_fitness,
        fitness=state.fitness,
        steps=state.steps,
        candidate_images=state.spent,
        seconds=state.seconds,
    )
