"""The fitness and its gradient, one chunk of images after the other. Each run of a chunk is one program."""

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
    """The fitness on some images, and its straight-through gradient.

    First all chunks run forwards. The gradient of the fitness with respect to their outputs follows. Then
    each chunk runs again, backwards from this gradient. So a fitness that compares images of several chunks
    is exact, and memory is that of one chunk.

    A loop over chunks inside one program gives the same. But XLA's CPU backend runs gradients of convolutions
    inside loops tens of times slower (`benchmarks/descent.py`).

    Args:
      loss: what descends.
      data: the arrays of the descent.
      theta: where the gradient is taken.
      images: the indices [b] of the images.
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
    """The outputs of the quantized network on a chunk of images, given by their indices."""
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
    """`total` plus the gradient of a chunk. Chunks wait for each other's sum, so no two run at once."""
    _, pull = jax.vjp(lambda theta: _outputs(loss, data, theta, chunk), theta)
    return jax.tree.map(jnp.add, total, pull(cotangent)[0])
