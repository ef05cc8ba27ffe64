"""The two things that a descent does: a step of the optimiser, and an evaluation of the quantized network."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from evolq_jax.gradient.chunks import value_and_gradient
from evolq_jax.gradient.loss import straight_through_loss
from evolq_jax.gradient.problem import Data, Problem, ScaleLoss
from evolq_jax.gradient.spsa import spsa
from evolq_jax.gradient.state import Evaluation, Point, State
from evolq_jax.gradient.theta import Theta, decode
from evolq_jax.network.chunks import in_chunks
from evolq_jax.network.point import at_qparams
from evolq_jax.network.walk import suffix_logits
from evolq_jax.objective.objective import Outputs
from evolq_jax.quant.qparams import QParams
from evolq_jax.typing import Array


def step(problem: Problem, data: Data, state: State) -> State:
    """The state after one step of the optimiser, with its cost added to what is spent.

    A line search pays for each point that it tries, as for a gradient.
    """
    images, tried = minibatch(problem, state), 0
    if problem.config.gradient == "spsa" or problem.config.optimizer == "lbfgs":
        key = jax.random.fold_in(state.key, state.steps + 1)
        point, tried = _step_in_one_program(problem, data, state.point, images, key=key)
    else:
        value, gradient = value_and_gradient(problem.loss, data, state.point.theta, images)
        point = _update(problem.optimizer, state.point, value, gradient)
    spent = problem.step_cost + int(tried) * problem.gradient_cost
    return state._replace(point=point, steps=state.steps + 1, spent=state.spent + spent)


def minibatch(problem: Problem, state: State) -> Array:
    """The indices [b] of the next step's images.

    Each epoch shuffles the images and cuts them into mini-batches. It leaves out those beyond the last whole
    one. If a mini-batch holds all images, they stay in order.
    """
    size, total = problem.minibatch, problem.num_searched
    if size == total:
        return jnp.arange(total)
    epoch, number = divmod(state.steps, total // size)
    key = jax.random.fold_in(state.key, 0)  # steps use the numbers from 1 on
    order = jax.random.permutation(jax.random.fold_in(key, epoch), total)
    return order[number * size : (number + 1) * size]


def evaluate(problem: Problem, data: Data, state: State) -> tuple[State, Evaluation]:
    """Scores the quantized network at the optimiser's point, as a search does.

    The point becomes the best so far if it is better on the images searched on and, if some are held out, on
    those too.

    Returns:
      The state, with the cost added to what is spent, and the record.
    """
    qparams = _decode(problem.loss, state.point.theta, data.start)
    on_searched, on_held_out = _score(problem.loss, data, qparams, num_searched=problem.num_searched)
    fitness, held_out = float(on_searched), None if on_held_out is None else float(on_held_out)
    spent = state.spent + problem.num_images
    state = state._replace(spent=spent, evaluated=spent)
    if state.start_fitness == np.inf:
        state = state._replace(start_fitness=fitness)
    if fitness < state.fitness and (held_out is None or held_out < state.held_out_fitness):
        kept = np.inf if held_out is None else held_out
        state = state._replace(best=qparams, fitness=fitness, held_out_fitness=kept)
    return state, Evaluation(
        step=state.steps,
        candidate_images=spent,
        fitness=fitness,
        held_out_fitness=held_out,
        best_fitness=state.fitness,
        seconds=state.seconds,
    )


@partial(jax.jit, static_argnames=("loss",))
def _decode(loss: ScaleLoss, theta: Theta, start: QParams) -> QParams:
    return decode(loss, theta, start)


@partial(jax.jit, static_argnames=("loss", "num_searched"))
def _score(loss: ScaleLoss, data: Data, qparams: QParams, *, num_searched: int) -> tuple[Array, Array | None]:
    """The fitness of the quantized network on the first `num_searched` images, and on the others if any."""
    network = at_qparams(loss.specs, data.params, qparams)

    def one_chunk(x: Array) -> Outputs:
        run = partial(suffix_logits, loss.parts, x=x)
        return loss.objective.outputs(loss.parts, network.reading(loss.specs), run)

    outputs = in_chunks(one_chunk, data.tokens, loss.image_chunk)

    def fitness(images: slice) -> Array:
        return loss.objective(outputs.rows(images), data.teacher.rows(images), data.temperature)

    searched = fitness(slice(num_searched))
    return searched, None if num_searched == len(data.tokens) else fitness(slice(num_searched, None))


@partial(jax.jit, static_argnames=("optimizer",))
def _update(
    optimizer: optax.GradientTransformationExtraArgs, point: Point, value: Array, gradient: Theta
) -> Point:
    """The next point, from a value and its gradient."""
    return _moved(optimizer, point, value, gradient)[0]


@partial(jax.jit, static_argnames=("problem",))
def _step_in_one_program(
    problem: Problem, data: Data, point: Point, images: Array, *, key: Array
) -> tuple[Point, Array]:
    """The next point, and the number of points that a line search tried. SPSA and `lbfgs` need this."""

    def loss(theta: Theta) -> Array:
        return straight_through_loss(problem.loss, data, theta, images)

    if problem.config.gradient == "spsa":
        value, gradient = spsa(loss, point.theta, key, problem.config)
    else:
        value, gradient = jax.value_and_grad(loss)(point.theta)
    point, state = _moved(problem.optimizer, point, value, gradient, value_fn=loss)
    return point, jnp.asarray(optax.tree.get(state, "num_linesearch_steps", 0))


def _moved(
    optimizer: optax.GradientTransformationExtraArgs,
    point: Point,
    value: Array,
    gradient: Theta,
    **more: Any,
) -> tuple[Point, Any]:
    """The next point, and the optimiser's state in optax's own type.

    `more` is what some optimisers want beside the gradient, such as the function itself.
    """
    structure = jax.tree.structure(jax.eval_shape(optimizer.init, point.theta))
    state = jax.tree.unflatten(structure, point.optimizer)
    updates, state = optimizer.update(gradient, state, point.theta, value=value, grad=gradient, **more)
    theta: Any = optax.apply_updates(point.theta, updates)
    return Point(theta, tuple(jax.tree.leaves(state))), state
