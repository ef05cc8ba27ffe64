"""How much each element of a unit's output matters to the network's output: a diagonal Fisher weighting.

The gradients are those of `calibration.fisher`: of the logits' Fisher information, with one random vector per
image and without labels. BRECQ (Li et al., 2102.05426, equation 10) uses those of a loss with labels.
"""

from functools import partial

import jax
import jax.numpy as jnp

from evolq_jax.calibration.reconstruction.units import Unit, list_units, run_unit, unit_params
from evolq_jax.network.parts import ModelParts
from evolq_jax.network.reading import float_reading
from evolq_jax.network.run import forward
from evolq_jax.objective.logits import random_score
from evolq_jax.quant.sites import FloatSite
from evolq_jax.typing import Array, Params


def importance(parts: ModelParts, params: Params, images: Array, key: Array) -> list[Array]:
    """Squared gradients at every unit's output, with mean 1 in each image and unit.

    This goes back through the network unit by unit, and one program serves all blocks of a segment. Nothing
    is differentiated inside a loop, because there XLA's convolution gradients on CPU are tens of times
    slower. The output of every unit is held twice for all images.

    Args:
      parts: the network.
      params: float parameters.
      images: normalised, in chunks [chunks, B, height, width, channels].
      key: PRNG key; consumed.

    Returns:
      [chunks * B, ...] for every unit of `list_units`; the head's are ones.
    """
    units = list_units(parts)
    found: list[list[Array]] = [[] for _ in units]
    keys = jax.random.split(key, images.shape[:2])  # an image's vector does not depend on the chunks
    for chunk, chunk_keys in zip(images, keys, strict=True):
        inputs = [chunk]
        for unit, index in units[:-1]:
            inputs.append(_run(unit, params, inputs[-1], jnp.int32(index)))
        gradient = _head_gradient(parts, params, inputs[-1], chunk_keys)
        for number in reversed(range(len(units) - 1)):
            found[number].append(_normalised(gradient**2))
            unit, index = units[number]
            if number:
                gradient = _pull(unit, params, jnp.int32(index), x=inputs[number], gradient=gradient)
    logits = jax.eval_shape(lambda p, x: forward(parts, float_reading(p), x), params, images[0])
    head = jnp.ones((images.shape[0] * images.shape[1], logits.shape[-1]))
    return [*(jnp.concatenate(chunks) for chunks in found[:-1]), head]


@partial(jax.jit, static_argnames=("unit",))
def _run(unit: Unit, params: Params, x: Array, index: Array) -> Array:
    return run_unit(unit, unit_params(unit, params, index), FloatSite(), x)


@partial(jax.jit, static_argnames=("unit",))
def _pull(unit: Unit, params: Params, index: Array, *, x: Array, gradient: Array) -> Array:
    """Turns the gradient at a unit's output into that at its input."""
    local = unit_params(unit, params, index)
    return jax.vjp(lambda x: run_unit(unit, local, FloatSite(), x), x)[1](gradient)[0]


@partial(jax.jit, static_argnames=("parts",))
def _head_gradient(parts: ModelParts, params: Params, x: Array, keys: Array) -> Array:
    """The gradient at the head's input of `sum_c v_c sqrt(p_c) log p_c`, v standard normal."""
    head = Unit(parts, "head")
    local = unit_params(head, params, 0)

    def projected(x: Array) -> Array:
        logits = run_unit(head, local, FloatSite(), x)
        return random_score(logits, jax.vmap(lambda key: jax.random.normal(key, logits.shape[1:]))(keys))

    return jax.grad(projected)(x)


@jax.jit
def _normalised(squares: Array) -> Array:
    """[B, ...] -> the same with mean 1 for every image (0 where all are 0)."""
    mean = squares.mean(tuple(range(1, squares.ndim)), keepdims=True)
    return squares / jnp.where(mean > 0, mean, 1.0)
