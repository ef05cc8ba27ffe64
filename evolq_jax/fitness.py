"""Fitness: how far the quantized network's outputs are from the float network's. Always minimised.

Each is a pure function `(student [B, C], teacher [B, C]) -> scalar` over one contrastive batch.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from evolq_jax.errors import UserError, suggestion
from evolq_jax.typing import Array, FitnessFn


def _unit(x: Array) -> Array:
    return x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), 1e-12)


def info_nce(student: Array, teacher: Array, temperature: Array | float = 3.0) -> Array:
    """Contrastive loss against the batch (Evol-Q, equation 3; official code's form and factor 2T).

    Positives are the same image's float logits, negatives the other images' of the batch:
    `2T mean_i CE(s_i . K^T / T, i)` over L2-normalised rows.
    """
    similarity = _unit(student) @ _unit(teacher).T / temperature
    positives = jnp.diagonal(similarity)
    return 2.0 * temperature * jnp.mean(jax.nn.logsumexp(similarity, axis=-1) - positives)


def mse(student: Array, teacher: Array) -> Array:
    """Mean squared difference of the logits."""
    return jnp.mean((student - teacher) ** 2)


def cosine(student: Array, teacher: Array) -> Array:
    """One minus the mean cosine similarity of the rows."""
    return 1.0 - jnp.mean(jnp.sum(_unit(student) * _unit(teacher), axis=-1))


def kl_per_image(student: Array, teacher: Array) -> Array:
    """`KL(softmax(teacher) || softmax(student))` of every row, in nats: [B]."""
    log_p, log_q = jax.nn.log_softmax(teacher, axis=-1), jax.nn.log_softmax(student, axis=-1)
    return jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=-1)


def kl(student: Array, teacher: Array) -> Array:
    """Mean Kullback-Leibler divergence from the float network's class probabilities, in nats."""
    return jnp.mean(kl_per_image(student, teacher))


FITNESS: dict[str, Callable[..., Array]] = {"info_nce": info_nce, "mse": mse, "cosine": cosine, "kl": kl}


def make_fitness(name: str, temperature: Array | float = 3.0) -> FitnessFn:
    """A fitness by name; `temperature` (may be traced) is used by `info_nce` only.

    Raises:
      UserError: the name is unknown.
    """
    if name not in FITNESS:
        raise UserError(f"unknown fitness '{name}'{suggestion(name, FITNESS)} (known: {', '.join(FITNESS)})")
    return partial(info_nce, temperature=temperature) if name == "info_nce" else FITNESS[name]


def batched(fitness_fn: FitnessFn, student: Array, teacher: Array, batch_size: int) -> Array:
    """Mean of `fitness_fn` over consecutive batches; [B, C] with B a multiple of `batch_size`."""
    num_classes = student.shape[-1]
    shape = (-1, batch_size, num_classes)
    return jnp.mean(jax.vmap(fitness_fn)(student.reshape(shape), teacher.reshape(shape)))
