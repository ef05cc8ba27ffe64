"""How far the quantized network's logits are from the float network's. Lower is better.

Each is a pure function `(student [B, C], teacher [B, C]) -> scalar` over one batch of images.
"""

import jax
import jax.numpy as jnp

from evolq_jax.typing import Array


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
    """`KL(softmax(teacher) || softmax(student))` of every row, in nats: [B].

    One output (C = 1) has no classes, and its softmax is always 1. The divergence is then that of normal
    distributions of variance 1 around the outputs: half the squared difference. It sees a shift of any
    output: of log odds, and of a regression's.
    """
    if teacher.shape[-1] == 1:
        return 0.5 * jnp.sum((student - teacher) ** 2, axis=-1)
    log_p, log_q = jax.nn.log_softmax(teacher, axis=-1), jax.nn.log_softmax(student, axis=-1)
    return jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=-1)


def kl(student: Array, teacher: Array) -> Array:
    """Mean Kullback-Leibler divergence from the float network's class probabilities, in nats."""
    return jnp.mean(kl_per_image(student, teacher))


def random_score(logits: Array, v: Array) -> Array:
    """A scalar of logits [B, C] whose gradient g at the logits has E[g g^T] equal to the Hessian of `kl`.

    Args:
      logits: of the float network.
      v: standard normal [B, C].
    """
    if logits.shape[-1] == 1:
        return jnp.sum(v * logits)
    log_p = jax.nn.log_softmax(logits)
    return (v * jax.lax.stop_gradient(jnp.exp(log_p / 2)) * log_p).sum()


def centred_cosine(student: Array, teacher: Array) -> Array:
    """`cosine` of what tells an image from the others: the batch mean is subtracted from each network's rows.

    At a high temperature infoNCE becomes this.
    """
    return cosine(student - student.mean(0), teacher - teacher.mean(0))


def top_k_kl(student: Array, teacher: Array, top_k: int = 10) -> Array:
    """`kl` over the teacher's `top_k` most likely classes, with all other classes as one, in nats.

    It does not see the noise of the tail. It is at most `kl`, and equal to it with up to top_k + 1 classes.
    """
    if top_k >= teacher.shape[-1]:
        return kl(student, teacher)
    _, chosen = jax.lax.top_k(teacher, top_k)
    likely = jnp.zeros(teacher.shape, bool).at[jnp.arange(len(teacher))[:, None], chosen].set(True)

    def log_probabilities(logits: Array) -> Array:
        log_p = jax.nn.log_softmax(logits, axis=-1)
        tail = jax.nn.logsumexp(jnp.where(likely, -jnp.inf, log_p), axis=-1, keepdims=True)
        return jnp.concatenate([jnp.take_along_axis(log_p, chosen, axis=-1), tail], axis=-1)

    log_p, log_q = log_probabilities(teacher), log_probabilities(student)
    return jnp.mean(jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=-1))
