"""The fitness and its gradient, one chunk of images after the other, each run of one a program of its own."""

from functools import partial

import jax
import jax.numpy as jnp

from evolq_jax.gradient.loss import (
    Data,
    Ends,
    Problem,
    Theta,
    straight_through_ends,
    straight_through_network,
)
from evolq_jax.network.chunks import largest_divisor
from evolq_jax.typing import Array


def value_and_gradient(problem: Problem, data: Data, theta: Theta, images: Array) -> tuple[Array, Theta]:
    """The fitness on the images of these indices [B], and its straight-through gradient.

    All chunks run forwards; the fitness of what they end with tells how each chunk's ends should change, and
    with that each runs again, backwards. So fitnesses that join images of several chunks are exact, and
    memory is one chunk's. It is what a loop over chunks inside one program gives, but XLA's CPU backend runs
    gradients of convolutions inside loops tens of times slower (`benchmarks/descent.py`).
    """
    size = largest_divisor(len(images), problem.image_chunk)
    chunks = images.reshape(-1, size)
    ends = [_ends(problem, data, theta, chunk) for chunk in chunks]
    value, cotangents = _fitness(problem, data, ends, images)
    gradient = jax.tree.map(jnp.zeros_like, theta)
    for chunk, cotangent in zip(chunks, cotangents, strict=True):
        gradient = _add_pulled(problem, data, theta, chunk, cotangent, gradient)
    return value, gradient


@partial(jax.jit, static_argnames=("problem",))
def _ends(problem: Problem, data: Data, theta: Theta, chunk: Array) -> Ends:
    return straight_through_ends(problem, *straight_through_network(problem, data, theta), data.tokens[chunk])


@partial(jax.jit, static_argnames=("problem",))
def _fitness(problem: Problem, data: Data, ends: list[Ends], images: Array) -> tuple[Array, list[Ends]]:
    """The fitness of all chunks' ends together, and its gradient with respect to each."""
    teacher = data.wanted.rows(images)

    def fitness(ends: list[Ends]) -> Array:
        joined = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *ends)
        return problem.fitness_of(joined, teacher, data.temperature)

    return jax.value_and_grad(fitness)(ends)


@partial(jax.jit, static_argnames=("problem",))
def _add_pulled(
    problem: Problem, data: Data, theta: Theta, chunk: Array, cotangent: Ends, total: Theta
) -> Theta:
    """`total` and what a chunk adds; as a sum, so that one chunk runs after the other."""
    _, pull = jax.vjp(lambda theta: _ends(problem, data, theta, chunk), theta)
    return jax.tree.map(jnp.add, total, pull(cotangent)[0])
