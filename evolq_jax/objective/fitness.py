"""Fitness: how far the quantized network's outputs are from the float network's. Always minimised.

Each is a pure function `(student [B, C], teacher [B, C]) -> scalar` over one contrastive batch. What a config
names is a sum of them, such as `kl` or `info_nce + 0.5*mse`, and of errors before the logits: of the features
that the classifiers read (`kl + 0.5*features`) and, in a search, of the searched block's output (`local`).
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from evolq_jax.errors import UserError, suggestion
from evolq_jax.typing import Array, FitnessFn

# The terms of a sum that are no functions of logits: `relative_error` of a block's output or the features.
LOCAL, FEATURES = "local", "features"
FLOOR = 1e-3  # of a token's mean square, relative to the mean over all tokens


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


def centred_cosine(student: Array, teacher: Array) -> Array:
    """`cosine` of what tells an image from the others: the batch's mean is taken off each network's rows.

    At a high temperature this is what infoNCE comes to.
    """
    return cosine(student - student.mean(0), teacher - teacher.mean(0))


def top_k_kl(student: Array, teacher: Array, k: int = 10) -> Array:
    """`kl` between distributions over the teacher's `k` most likely classes and all others as one, in nats.

    At most `kl`, and equal to it where there are k + 1 classes or fewer: the tail's noise is not seen.
    """
    if k >= teacher.shape[-1]:
        return kl(student, teacher)
    _, chosen = jax.lax.top_k(teacher, k)
    likely = jnp.zeros(teacher.shape, bool).at[jnp.arange(len(teacher))[:, None], chosen].set(True)

    def log_probabilities(logits: Array) -> Array:
        log_p = jax.nn.log_softmax(logits, axis=-1)
        tail = jax.nn.logsumexp(jnp.where(likely, -jnp.inf, log_p), axis=-1, keepdims=True)
        return jnp.concatenate([jnp.take_along_axis(log_p, chosen, axis=-1), tail], axis=-1)

    log_p, log_q = log_probabilities(teacher), log_probabilities(student)
    return jnp.mean(jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=-1))


def relative_error(output: Array, wanted: Array) -> Array:
    """Each token's mean squared error over the token's own mean square, averaged: [B].

    `output` and `wanted` are [B, ..., channels], a block's output or features. What follows a block is mostly
    a norm, to which a token's size means nothing; a plain mean would be that of the few tokens with massive
    activations.
    """
    size = (wanted**2).mean(-1)
    error = ((output - wanted) ** 2).mean(-1) / jnp.maximum(size, FLOOR * size.mean())
    return error.reshape(len(error), -1).mean(-1)


FITNESS: dict[str, Callable[..., Array]] = {
    "info_nce": info_nce,
    "mse": mse,
    "cosine": cosine,
    "kl": kl,
    "centred_cosine": centred_cosine,
    "top_k_kl": top_k_kl,
}


class Term(NamedTuple):
    """One of a sum."""

    weight: float
    name: str


def parse_fitness(text: str, functions: tuple[FitnessFn, ...] = ()) -> tuple[Term, ...]:
    """The terms of `name`, or of a sum such as `kl + 0.5*local`; `functions` are known by their names.

    Raises:
      UserError: a name is unknown or stands for two terms, or a weight is no positive number.
    """
    own = [function.__name__ for function in functions]
    known = [*FITNESS, LOCAL, FEATURES, *own]
    if len(set(known)) < len(known):
        raise UserError(f"two terms of a fitness have one name: rename one of the functions {', '.join(own)}")
    terms = []
    for part in text.split("+"):
        factor, _, name = (piece.strip() for piece in part.rpartition("*"))
        if name not in known:
            hint = suggestion(name, known)
            raise UserError(
                f"unknown fitness '{name}'{hint} (known: {', '.join(known)}; or a sum, kl+0.5*local)"
            )
        try:
            weight = float(factor or 1)
        except ValueError:
            weight = 0.0
        if not 0 < weight < float("inf"):
            raise UserError(f"fitness '{text}': the weight '{factor}' of '{name}' is no positive number")
        terms.append(Term(weight, name))
    return tuple(terms)


def weight_of(name: str, terms: tuple[Term, ...]) -> float:
    """The weight of one kind of terms in a sum; 0 where there is none."""
    return sum(term.weight for term in terms if term.name == name)


def logits_fitness(
    terms: tuple[Term, ...],
    temperature: Array | float = 3.0,
    top_k: int = 10,
    functions: tuple[FitnessFn, ...] = (),
) -> FitnessFn | None:
    """The sum of the terms that are functions of logits; None: there are none."""
    by_name = FITNESS | {function.__name__: partial(_checked, function) for function in functions}
    by_name["info_nce"] = partial(info_nce, temperature=temperature)
    by_name["top_k_kl"] = partial(top_k_kl, k=top_k)
    chosen = [(weight, by_name[name]) for weight, name in terms if name not in (LOCAL, FEATURES)]
    if len(chosen) == 1 and chosen[0][0] == 1:
        return chosen[0][1]
    if not chosen:
        return None
    return lambda student, teacher: jnp.sum(jnp.stack([w * fn(student, teacher) for w, fn in chosen]))


def _checked(function: FitnessFn, student: Array, teacher: Array) -> Array:
    value = jnp.asarray(function(student, teacher))
    if value.shape:
        raise UserError(
            f"fitness '{function.__name__}' must give one number, not an array of shape {value.shape}"
        )
    return value


def make_fitness(
    text: str,
    temperature: Array | float = 3.0,
    top_k: int = 10,
    functions: tuple[FitnessFn, ...] = (),
) -> FitnessFn:
    """A fitness of logits by its name, or a sum of them.

    Args:
      text: see `parse_fitness`.
      temperature: of `info_nce` (may be traced).
      top_k: of `top_k_kl`.
      functions: terms beside ours.

    Raises:
      UserError: as `parse_fitness`; or a term needs more than logits.
    """
    terms = parse_fitness(text, functions)
    check_not_local(text, functions)
    found = logits_fitness(terms, temperature, top_k, functions)
    if found is None or weight_of(FEATURES, terms):
        raise UserError(f"fitness '{text}': '{FEATURES}' is no function of logits")
    return found


def check_not_local(text: str, functions: tuple[FitnessFn, ...] = ()) -> None:
    """Of a fitness that is to serve all blocks at once.

    Raises:
      UserError: as `parse_fitness`; or a term is about one block.
    """
    if weight_of(LOCAL, parse_fitness(text, functions)):
        raise UserError(f"fitness '{text}': '{LOCAL}' is known to the block-wise search only")


def batched(fitness_fn: FitnessFn, student: Array, teacher: Array, batch_size: int) -> Array:
    """Mean of `fitness_fn` over consecutive batches; [B, C] with B a multiple of `batch_size`."""
    num_classes = student.shape[-1]
    shape = (-1, batch_size, num_classes)
    return jnp.mean(jax.vmap(fitness_fn)(student.reshape(shape), teacher.reshape(shape)))
