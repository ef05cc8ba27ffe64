"""Descent over the scales of all blocks at once, in the budget of a search."""

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from evolq_jax.fitness import batched
from evolq_jax.gradient.config import BACKWARD
from evolq_jax.gradient.loss import Data, Problem, Theta, decode, encode, spsa, straight_through_loss
from evolq_jax.gradient.optimizers import make_optimizer
from evolq_jax.network import in_chunks
from evolq_jax.quant.sites import quant_sites
from evolq_jax.search.config import SearchConfig
from evolq_jax.search.evaluate import at_scales, suffix_logits
from evolq_jax.typing import Array, Scales


class Evaluation(NamedTuple):
    """The quantized network at one time of the descent; a line of `log.jsonl`."""

    step: int
    candidate_images: int  # spent so far
    fitness: float  # on the images descended on
    held_out_fitness: float | None
    best_fitness: float
    seconds: float


class Descent(NamedTuple):
    """The scales found, and the fitness they started and ended with."""

    scales: Scales
    start_fitness: float
    fitness: float
    steps: int
    candidate_images: int
    seconds: float


def descend(
    problem: Problem,
    search: SearchConfig,
    data: Data,
    budget: int,
    key: Array,
    on_evaluation: Callable[[Evaluation, Scales], None] = lambda record, best: None,
) -> Descent:
    """Improves the scales of all blocks at once while the budget lasts.

    The result is the best point that was evaluated: better than those before on the images descended
    on *and*, with a `search.holdout`, on those held out, as the search keeps its moves.

    Args:
      problem: static settings.
      search: holdout and temperature are taken from it.
      data: the arrays.
      budget: candidate-images; what is found beyond it does not count.
      key: PRNG key; consumed. Draws mini-batches and SPSA's signs.
      on_evaluation: told of every evaluation, and given the best scales so far, for progress and logs.

    Raises:
      UserError: the optimiser is unknown, or the mini-batch does not fit.
    """
    baseline, began = problem.baseline, time.monotonic()
    total = len(data.teacher)
    num_images = total - search.num_held_out(total)
    size = baseline.check_minibatch(num_images, problem.batch_size)
    optimizer = make_optimizer(baseline, baseline.num_steps(budget, size, total))
    theta = encode(problem, data.start)
    state = optimizer.init(theta)
    spent, step, keeper = 0, 0, _Keeper(problem, data, num_images)
    draws = _minibatches(num_images, size, jax.random.fold_in(key, 0))

    def evaluate() -> int:
        fitness, held_out = keeper.offer(theta)
        seconds = round(time.monotonic() - began, 3)
        record = Evaluation(step, spent + total, fitness, held_out, keeper.fitness, seconds)
        on_evaluation(record, keeper.scales)
        return total

    spent += evaluate()
    cost = baseline.step_cost(size)
    while spent + cost + total <= budget:
        step_key = jax.random.fold_in(key, step + 1)
        theta, state, line_steps = _step(problem, optimizer, data, theta, state, next(draws), step_key)
        # A line search evaluates value and gradient at each of its points.
        spent += cost + int(line_steps) * (1 + BACKWARD) * size
        step += 1
        if spent + total > budget:  # its line search overran: what it found does not count
            break
        if step % baseline.evaluate_every == 0 or spent + cost + total > budget:
            spent += evaluate()
    seconds = time.monotonic() - began
    return Descent(keeper.scales, keeper.start_fitness, keeper.fitness, step, spent, seconds)


class _Keeper:
    """Evaluates points as the search does, and remembers the best."""

    def __init__(self, problem: Problem, data: Data, num_images: int) -> None:
        self._problem, self._data, self._num_images = problem, data, num_images
        self.scales, self.fitness, self.start_fitness = data.start, np.inf, np.inf
        self._held_out = np.inf

    def offer(self, theta: Theta) -> tuple[float, float | None]:
        """Fitness on the images descended on, and on those held out (None: there are none)."""
        scales = _decoded(self._problem, theta, self._data.start)
        searched, others = _fitness(self._problem, self._num_images, self._data, scales)
        fitness, held_out = float(searched), None if others is None else float(others)
        if self.start_fitness == np.inf:
            self.start_fitness = fitness
        if fitness < self.fitness and (held_out is None or held_out < self._held_out):
            self.scales, self.fitness = scales, fitness
            self._held_out = np.inf if held_out is None else held_out
        return fitness, held_out


def _minibatches(num_images: int, size: int, key: Array) -> Iterator[Array]:
    """Indices [size] of a shuffled epoch after the other; all images in order where they fit into one."""
    if size == num_images:
        while True:
            yield jnp.arange(num_images)
    epoch = 0
    while True:
        order = jax.random.permutation(jax.random.fold_in(key, epoch), num_images)
        yield from (order[first : first + size] for first in range(0, num_images - size + 1, size))
        epoch += 1


@partial(jax.jit, static_argnames=("problem",))
def _decoded(problem: Problem, theta: Theta, start: Scales) -> Scales:
    return decode(problem, theta, start)


@partial(jax.jit, static_argnames=("problem", "num_images"))
def _fitness(problem: Problem, num_images: int, data: Data, scales: Scales) -> tuple[Array, Array | None]:
    """Fitness of the quantized network on the first `num_images`, and on the others."""
    network = at_scales(problem.specs, data.params, scales)

    def chunk_logits(x: Array) -> Array:
        make_site = quant_sites(problem.specs)
        return suffix_logits(problem.parts, make_site, 0, network.quantized, network.scales, x, 0)

    logits = in_chunks(chunk_logits, data.tokens, problem.image_chunk)
    score = partial(batched, problem.fitness_fn(data.temperature), batch_size=problem.batch_size)
    searched = score(logits[:num_images], data.teacher[:num_images])
    if num_images == len(logits):
        return searched, None
    return searched, score(logits[num_images:], data.teacher[num_images:])


@partial(jax.jit, static_argnames=("problem", "optimizer"))
def _step(
    problem: Problem,
    optimizer: optax.GradientTransformationExtraArgs,
    data: Data,
    theta: Theta,
    state: Any,
    images: Array,
    key: Array,
) -> tuple[Theta, Any, Array]:
    """One step on the images of these indices; also the points that a line search tried."""
    x, teacher = data.tokens[images], data.teacher[images]

    def loss(theta: Theta) -> Array:
        return straight_through_loss(problem, data, theta, x, teacher)

    if problem.baseline.gradient == "spsa":
        value, gradient = spsa(loss, theta, key, problem.baseline)
    else:
        value, gradient = jax.value_and_grad(loss)(theta)
    updates, state = optimizer.update(gradient, state, theta, value=value, grad=gradient, value_fn=loss)
    line_steps = optax.tree.get(state, "num_linesearch_steps", 0)
    return optax.apply_updates(theta, updates), state, jnp.asarray(line_steps)  # type: ignore[return-value]
