"""The kinds of things that configs hold by name or as an object, for code that reads or writes configs."""

from collections.abc import Mapping
from typing import Any, NamedTuple, get_args

from evolq_jax.calibration.chain import LINKS
from evolq_jax.calibration.link import Link
from evolq_jax.named import Named
from evolq_jax.quant.quantizers import QUANTIZERS
from evolq_jax.quant.quantizers.base import Quantizer


class NamedKind(NamedTuple):
    """Things of one kind: their class, a word for messages, and the things that evolq_jax brings along."""

    kind: type
    noun: str
    things: Mapping[str, Named]


KINDS = (
    NamedKind(Link, "link", LINKS),
    NamedKind(Quantizer, "quantizer", QUANTIZERS),
)


def named_kind(hint: Any) -> NamedKind | None:
    """The kind of a field's type, such as `str | Link`, or of a thing's class. None: it has no such kind."""
    types = [part for part in (hint, *get_args(hint)) if isinstance(part, type)]
    return next((known for known in KINDS if any(issubclass(part, known.kind) for part in types)), None)
