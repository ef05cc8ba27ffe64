"""The kinds of things that configs hold by name or as an object, for code that reads or writes configs."""

from collections.abc import Callable
from typing import Any, NamedTuple, get_args

from evolq_jax.calibration.chain import LINKS
from evolq_jax.calibration.link import Link, recorded_link
from evolq_jax.named import Named
from evolq_jax.objective.terms import TERMS, Term, recorded_term
from evolq_jax.quant.observers import OBSERVERS
from evolq_jax.quant.observers.base import Observer, recorded_observer
from evolq_jax.quant.quantizers import QUANTIZERS
from evolq_jax.quant.quantizers.base import Quantizer, recorded_quantizer
from evolq_jax.search.algorithms.base import Algorithm, recorded_algorithm
from evolq_jax.search.algorithms.menu import ALGORITHMS


class NamedKind(NamedTuple):
    """Things of one kind.

    Attributes:
      kind: their class.
      noun: a word for messages.
      things: those that evolq_jax brings along, and those of plug-ins, by name.
      recorded: stands in for a thing whose name alone a run has recorded. It is refused where it is used, so
        the rest of the run's config can be read.
    """

    kind: type
    noun: str
    things: dict[str, Any]
    recorded: Callable[[str], Named]


KINDS = (  # one line for each kind
    NamedKind(Link, "link", LINKS, recorded_link),
    NamedKind(Term, "fitness term", TERMS, recorded_term),
    NamedKind(Algorithm, "search algorithm", ALGORITHMS, recorded_algorithm),
    NamedKind(Quantizer, "quantizer", QUANTIZERS, recorded_quantizer),
    NamedKind(Observer, "observer", OBSERVERS, recorded_observer),
)


def named_kind(hint: Any) -> NamedKind | None:
    """The kind of a field's type, such as `str | Link`, or of a thing's class. None: it has no such kind."""
    types = [part for part in (hint, *get_args(hint)) if isinstance(part, type)]
    return next((known for known in KINDS if any(issubclass(part, known.kind) for part in types)), None)
