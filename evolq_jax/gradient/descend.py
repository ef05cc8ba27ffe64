"""Descent over the scales of all blocks at once, in the budget of a search."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from evolq_jax.gradient.chunks import value_and_gradient
from evolq_jax.gradient.config import BACKWARD
from evolq_jax.gradient.loss import (
    Data,
    Problem,
    Theta,
    decode,
    encode,
    spsa,
    straight_through_loss,
)
from evolq_jax.gradient.optimizers import make_optimizer
from evolq_jax.gradient.records import Descent, Evaluation, Position
from evolq_jax.network.chunks import in_chunks
from evolq_jax.network.point import at_qparams
from evolq_jax.network.walk import suffix_logits
from evolq_jax.objective.objective import Outputs
from evolq_jax.quant.qparams import QParams
from evolq_jax.quant.sites import SiteFactory, quant_sites
from evolq_jax.search.config import SearchConfig
from evolq_jax.typing import Array


def first_position(problem: Problem, start: QParams) -> Position:
    """Where a descent from these scales begins.

    Raises:
      UserError: the optimiser is unknown.
    """
    theta = encode(problem, start)
    state = make_optimizer(problem.baseline, 1).init(theta)  # the schedule is no part of it
    return Position(theta, tuple(jax.tree.leaves(state)), start)


def descend(
    problem: Problem,
    search: SearchConfig,
    data: Data,
    budget: int,
    key: Array,
    on_evaluation: Callable[[Evaluation, QParams], None] = lambda record, best: None,
    on_step: Callable[[Position], None] = lambda position: None,
    position: Position | None = None,
) -> Descent:
    """Improves the scales of all blocks at once while the budget lasts.

    The result is the best point that was evaluated: better than those before on the images descended
    on *and*, with a `search.holdout`, on those held out, as the search keeps its moves.

    It does not depend on `on_evaluation` and `on_step`, and is bit for bit the same when a descent goes on
    from a position of an earlier one with otherwise equal arguments, on the same hardware.

    Args:
      problem: static settings.
      search: holdout and temperature are taken from it.
      data: the arrays.
      budget: candidate-images; what is found beyond it does not count.
      key: PRNG key; consumed. Draws mini-batches and SPSA's signs.
      on_evaluation: told of every evaluation, and given the best scales so far, for progress and logs.
      on_step: told where the descent stands once its start is evaluated, and after every step.
      position: where to go on; None: from the start.

    Raises:
      UserError: the optimiser is unknown, or the mini-batch does not fit.
    """
    run = _Descend(problem, search, data, budget, key, on_evaluation, on_step)
    return run(position or first_position(problem, data.start))


class _Descend:
    """The loop's fixed surroundings, so that its steps have short signatures."""

    def __init__(
        self,
        problem: Problem,
        search: SearchConfig,
        data: Data,
        budget: int,
        key: Array,
        on_evaluation: Callable[[Evaluation, QParams], None],
        on_step: Callable[[Position], None],
    ) -> None:
        self.problem, self.data, self.budget, self.key = problem, data, budget, key
        self.on_evaluation, self.on_step = on_evaluation, on_step
        baseline, self.total = problem.baseline, len(data.tokens)
        self.num_images = self.total - search.num_held_out(self.total)
        self.size = baseline.check_minibatch(self.num_images, search.batch_size)
        self.cost = baseline.step_cost(self.size)
        self.optimizer = make_optimizer(baseline, baseline.num_steps(budget, self.size, self.total))

    def __call__(self, at: Position) -> Descent:
        self.began = time.monotonic() - at.seconds
        self.structure = jax.tree.structure(jax.eval_shape(self.optimizer.init, at.theta))
        if not at.spent:
            at = self._evaluate(at)
            self.on_step(at)
        while at.spent + self.cost + self.total <= self.budget:
            at = self._step(at)
            left = self.budget - at.spent
            is_due = at.step % self.problem.baseline.evaluate_every == 0 or left < self.cost + self.total
            if is_due and left >= self.total:  # else its line search overran: what it found does not count
                at = self._evaluate(at)
            self.on_step(at)
        return Descent(at.best, at.start_fitness, at.fitness, at.step, at.spent, self._seconds())

    def _step(self, at: Position) -> Position:
        state = jax.tree.unflatten(self.structure, at.optimizer)
        images = _minibatch(self.num_images, self.size, jax.random.fold_in(self.key, 0), at.step)
        key = jax.random.fold_in(self.key, at.step + 1)
        if self.problem.baseline.gradient == "spsa" or self.problem.baseline.optimizer == "lbfgs":
            args = self.data, at.theta, state, images, key
            theta, state, line_steps = _whole_step(self.problem, self.optimizer, *args)
        else:
            found = value_and_gradient(self.problem, self.data, at.theta, images)
            (theta, state), line_steps = _update(self.optimizer, at.theta, state, *found), 0
        # A line search evaluates value and gradient at each of its points.
        spent = at.spent + self.cost + int(line_steps) * (1 + BACKWARD) * self.size
        leaves = tuple(jax.tree.leaves(state))
        return at._replace(
            theta=theta, optimizer=leaves, step=at.step + 1, spent=spent, seconds=self._seconds()
        )

    def _evaluate(self, at: Position) -> Position:
        """Evaluates the point as the search does, and remembers it if it is the best."""
        qparams = _decoded(self.problem, at.theta, self.data.start)
        searched, others = _fitness(self.problem, self.num_images, self.data, qparams)
        fitness, held_out = float(searched), None if others is None else float(others)
        spent = at.spent + self.total
        at = at._replace(spent=spent, evaluated=spent, seconds=self._seconds())
        if at.start_fitness == np.inf:
            at = at._replace(start_fitness=fitness)
        if fitness < at.fitness and (held_out is None or held_out < at.held_out_fitness):
            kept = np.inf if held_out is None else held_out
            at = at._replace(best=qparams, fitness=fitness, held_out_fitness=kept)
        record = Evaluation(at.step, spent, fitness, held_out, at.fitness, round(at.seconds, 3))
        self.on_evaluation(record, at.best)
        return at

    def _seconds(self) -> float:
        return time.monotonic() - self.began


def _minibatch(num_images: int, size: int, key: Array, step: int) -> Array:
    """Indices [size] of a step: shuffled epochs in turn; all images in order where they fit into one."""
    if size == num_images:
        return jnp.arange(num_images)
    epoch, number = divmod(step, num_images // size)
    order = jax.random.permutation(jax.random.fold_in(key, epoch), num_images)
    return order[number * size : (number + 1) * size]


@partial(jax.jit, static_argnames=("problem",))
def _decoded(problem: Problem, theta: Theta, start: QParams) -> QParams:
    return decode(problem, theta, start)


@partial(jax.jit, static_argnames=("problem", "num_images"))
def _fitness(problem: Problem, num_images: int, data: Data, qparams: QParams) -> tuple[Array, Array | None]:
    """Fitness of the quantized network on the first `num_images`, and on the others."""
    network = at_qparams(problem.specs, data.params, qparams)

    def one_chunk(x: Array) -> Outputs:
        def logits(make_site: SiteFactory) -> Array:
            return suffix_logits(problem.parts, make_site, network.quantized, network.qparams, x=x)

        return problem.objective.outputs(problem.parts, quant_sites(problem.specs), logits)

    outputs = in_chunks(one_chunk, data.tokens, problem.image_chunk)

    def score(part: slice) -> Array:
        return problem.objective(outputs.rows(part), data.teacher.rows(part), data.temperature)

    searched = score(slice(num_images))
    return searched, None if num_images == len(data.tokens) else score(slice(num_images, None))


def _apply(
    optimizer: optax.GradientTransformationExtraArgs,
    theta: Theta,
    state: Any,
    value: Array,
    gradient: Theta,
    **more: Any,
) -> tuple[Theta, Any]:
    """Moved as the optimiser says, which may want more than the gradient; and its new state."""
    updates, state = optimizer.update(gradient, state, theta, value=value, grad=gradient, **more)
    return optax.apply_updates(theta, updates), state  # type: ignore[return-value]


_update = jax.jit(_apply, static_argnames=("optimizer",))


@partial(jax.jit, static_argnames=("problem", "optimizer"))
def _whole_step(
    problem: Problem,
    optimizer: optax.GradientTransformationExtraArgs,
    data: Data,
    theta: Theta,
    state: Any,
    images: Array,
    key: Array,
) -> tuple[Theta, Any, Array]:
    """A step as one program, which SPSA and line searches need, and the points that a line search tried."""

    def loss(theta: Theta) -> Array:
        return straight_through_loss(problem, data, theta, images)

    if problem.baseline.gradient == "spsa":
        value, gradient = spsa(loss, theta, key, problem.baseline)
    else:
        value, gradient = jax.value_and_grad(loss)(theta)
    theta, state = _apply(optimizer, theta, state, value, gradient, value_fn=loss)
    return theta, state, jnp.asarray(optax.tree.get(state, "num_linesearch_steps", 0))
