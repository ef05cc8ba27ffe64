"""The terms of a fitness: records in one dict, and sums of them by name.

A config names a term or a sum, such as `kl` or `info_nce + 0.5*features`. Python can also pass a `Term`, or a
plain function of logits.
"""

from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from functools import cache
from typing import Any, Literal, NamedTuple, NoReturn

from evolq_jax.errors import UserError, suggestion
from evolq_jax.named import first_line, only_name_recorded
from evolq_jax.objective.activations import relative_error
from evolq_jax.objective.logits import centred_cosine, cosine, info_nce, kl, mse, top_k_kl
from evolq_jax.typing import Array, FitnessFn

Reads = Literal["logits", "features", "own_output"]


@dataclass(frozen=True)
class Term:
    """One way to say how far the quantized network is from the float network. Lower is better.

    Attributes:
      name: the name that configs use.
      does: what it compares, in one sentence without a full stop.
      function: a pure function. For logits: `(student [B, C], teacher [B, C]) -> scalar`, over one batch. For
        features or a block's own output: `(student [B, ...], teacher [B, ...]) -> [B]`, an error per image.
      reads: what `function` gets: the logits; the features that the classifiers read; or the output of the
        searched block, beside that of the float block on the same input.
      unit: the unit of the value.
      contrastive: whether `function` compares the images of a batch with each other. Then its value depends
        on which images are in one batch.
      directions: whether `function` compares the directions of logits alone. One output has none.
      takes: settings that `function` takes as keywords: `temperature` (traced) or `top_k` (static).
    """

    name: str
    does: str
    function: Callable[..., Array]
    _: KW_ONLY
    reads: Reads = "logits"
    unit: str = "1"
    contrastive: bool = False
    directions: bool = False
    takes: tuple[str, ...] = ()


class Weighted(NamedTuple):
    """A term of a sum."""

    weight: float
    term: Term


TERMS = {
    term.name: term
    for term in (
        Term(
            "info_nce",
            "contrasts each image's logits with the float logits of the batch (the paper's)",
            info_nce,
            contrastive=True,
            directions=True,
            takes=("temperature",),
        ),
        Term("mse", "the mean squared difference of the logits", mse, unit="squared logits"),
        Term("cosine", "one minus the mean cosine between the logits", cosine, directions=True),
        Term("kl", "the divergence from the float network's class probabilities", kl, unit="nats"),
        Term(
            "centred_cosine",
            "cosine after the batch's mean is taken off the logits",
            centred_cosine,
            contrastive=True,
            directions=True,
        ),
        Term(
            "top_k_kl",
            "kl over the float network's most likely classes, all others as one",
            top_k_kl,
            unit="nats",
            takes=("top_k",),
        ),
        Term(
            "features",
            "the relative error of the features that the classifiers read",
            relative_error,
            reads="features",
        ),
        Term(
            "local",
            "the relative error of the searched block's own output",
            relative_error,
            reads="own_output",
        ),
    )
}


def as_term(given: Term | FitnessFn) -> Term:
    """A term as it is; a plain function of logits as a term of the function's name."""
    if isinstance(given, Term):
        return given
    return Term(given.__name__, first_line(given.__doc__), given, contrastive=True)


@cache  # so that equal names give equal configs
def recorded_term(name: str) -> Term:
    """Stands in for a term whose name alone is recorded. A fitness that has it is refused."""

    def refuse(*args: Any, **settings: Any) -> NoReturn:
        raise only_name_recorded(name, "fitness term")

    return Term(name, "is recorded by its name alone", refuse)


def parse_fitness(
    fitness: str | Term | FitnessFn, more: Sequence[Term | FitnessFn] = ()
) -> tuple[Weighted, ...]:
    """The terms of a fitness, with their weights.

    Args:
      fitness: a name, a sum such as `kl + 0.5*local`, a term or a function.
      more: terms and functions that a sum may name beside those of `TERMS`.

    Raises:
      UserError: a name is unknown or stands for two terms, or a weight is no positive number.
    """
    if not isinstance(fitness, str):
        return (Weighted(1.0, as_term(fitness)),)
    own = [as_term(given) for given in more]
    known = TERMS | {term.name: term for term in own}
    if len(known) < len(TERMS) + len(own):
        names = ", ".join(term.name for term in own)
        raise UserError(f"two terms of a fitness have one name: rename one of the functions {names}")
    return tuple(_parse_part(part, fitness, known) for part in fitness.split("+"))


def _parse_part(part: str, fitness: str, known: dict[str, Term]) -> Weighted:
    """One summand: `kl` or `0.5*kl`."""
    factor, _, name = (piece.strip() for piece in part.rpartition("*"))
    if name not in known:
        raise UserError(
            f"unknown fitness '{name}'{suggestion(name, known)} (known: {', '.join(known)}; or a sum, "
            "kl+0.5*local)"
        )
    try:
        weight = float(factor or 1)
    except ValueError:
        weight = 0.0
    if not 0 < weight < float("inf"):
        raise UserError(f"fitness '{fitness}': the weight '{factor}' of '{name}' is no positive number")
    return Weighted(weight, known[name])
