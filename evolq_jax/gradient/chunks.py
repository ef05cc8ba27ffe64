"""The fitness and its gradient, one chunk of images after the other, each run of one a program of its own."""

from functools import partial

import jax
import jax.numpy as jnp

from evolq_jax.gradient.loss import straight_through_network, straight_through_outputs
from evolq_jax.gradient.problem import Data, ScaleLoss
from evolq_jax.gradient.theta import Theta
from evolq_jax.network.chunks import largest_divisor
from evolq_jax.objective.objective import Outputs
from evolq_jax.typing import Array


def value_and_gradient(loss: ScaleLoss, data: Data, theta: Theta, images: Array) -> tuple[Array, Theta]:
    """The fitness on the images of these indices [B], and its straight-through gradient.

    All chunks run forwards. The fitness of their outputs tells how each chunk's outputs should change. With
    that each runs again, backwards. So fitnesses that join images of several chunks are exact, and
    memory is one chunk's. It is what a loop over chunks inside one program gives, but XLA's CPU backend runs
    gradients of convolutions inside loops tens of times slower (`benchmarks/descent.py`).
    """
    size = largest_divisor(len(images), loss.image_chunk)
    chunks = images.reshape(-1, size)
    outputs = [_outputs(loss, data, theta, chunk) for chunk in chunks]
    value, cotangents = _fitness(loss, data, outputs, images)
    gradient = jax.tree.map(jnp.zeros_like, theta)
    for chunk, cotangent in zip(chunks, cotangents, strict=True):
        gradient = _add_pulled(loss, data, theta, chunk, cotangent=cotangent, total=gradient)
    return value, gradient


@partial(jax.jit, static_argnames=("loss",))
def _outputs(loss: ScaleLoss, data: Data, theta: Theta, chunk: Array) -> Outputs:
    return straight_through_outputs(loss, straight_through_network(loss, data, theta), data.tokens[chunk])


@partial(jax.jit, static_argnames=("loss",))
def _fitness(
    loss: ScaleLoss, data: Data, outputs: list[Outputs], images: Array
) -> tuple[Array, list[Outputs]]:
    """The fitness of all chunks' outputs together, and its gradient with respect to each."""
    teacher = data.teacher.rows(images)

    def fitness(outputs: list[Outputs]) -> Array:
        joined = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *outputs)
        return loss.objective(joined, teacher, data.temperature)

    return jax.value_and_grad(fitness)(outputs)


@partial(jax.jit, static_argnames=("loss",))
def _add_pulled(
    loss: ScaleLoss, data: Data, theta: Theta, chunk: Array, *, cotangent: Outputs, total: Theta
) -> Theta:
    """`total` and what a chunk adds; as a sum, so that one chunk runs after the other."""
    _, pull = jax.vjp(lambda theta: _outputs(loss, data, theta, chunk), theta)
    return jax.tree.map(jnp.add, total, pull(cotangent)[0])
