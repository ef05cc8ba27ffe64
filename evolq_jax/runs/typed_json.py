"""Frozen dataclasses as strict JSON, and back.

JSON has no name for a float that is not finite. In the file it is `null`; when it is read, it is NaN.
"""

import dataclasses
import json
import math
from typing import Any, Literal, TypeVar, get_args, get_origin

from cattrs import BaseValidationError, ForbiddenExtraKeysError, transform_error
from cattrs.preconf.json import make_converter
from cattrs.v import format_exception

from evolq_jax.config.named import named_kind
from evolq_jax.errors import UserError, suggestion
from evolq_jax.named import name_of

T = TypeVar("T")

_converter = make_converter(forbid_extra_keys=True)


def _found(name: Any, kind: Any) -> Any:
    """What a recorded name stands for; things that Python passed are recorded by name too."""
    known = named_kind(kind)
    # A sum of fitness terms is no name.
    if known is None or not isinstance(name, str) or name in known.things or set("+*") & set(name):
        return name
    return known.recorded(name)


def _name(thing: Any) -> str | None:
    """Things are recorded by name; a field may hold none."""
    return None if thing is None else name_of(thing)


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _number(value: Any, kind: Any) -> float:
    return math.nan if value is None else kind(value)


_converter.register_unstructure_hook_func(lambda kind: named_kind(kind) is not None, _name)
_converter.register_structure_hook_func(lambda kind: named_kind(kind) is not None, _found)
_converter.register_unstructure_hook(float, _finite)
_converter.register_structure_hook(float, _number)


def to_plain(value: Any) -> Any:
    """Dictionaries, lists, texts and finite numbers that say the same, ready for `json.dumps`."""
    return _converter.unstructure(value)


def to_json(value: Any) -> str:
    """A dataclass as JSON, every field spelt out."""
    return json.dumps(to_plain(value), indent=2, allow_nan=False) + "\n"


def from_plain(given: dict[str, Any], kind: type[T], where: str, what: str) -> T:
    """The inverse of `to_plain`. Fields that `given` lacks take their defaults.

    Args:
      given: what `json.loads` gave.
      kind: the dataclass.
      where: what to call the source in errors.
      what: what to call the dataclass in errors.

    Raises:
      UserError: there is an unknown key or a value of the wrong type or range.
    """
    try:
        found = _converter.structure(given, kind)
    except BaseValidationError as error:
        reasons = "; ".join(transform_error(error, format_exception=_reason))
        raise UserError(f"{where}: not a {what}: {reasons}") from error
    mistyped = _mistyped(given, json.loads(to_json(found)))
    if mistyped:
        raise UserError(f"{where}: not a {what}: {mistyped} has a value of the wrong type")
    return found


def _reason(error: BaseException, kind: type | None) -> str:
    if isinstance(error, ForbiddenExtraKeysError):
        name = min(error.extra_fields)
        known = [field.name for field in dataclasses.fields(error.cl)]
        return f"unknown key '{name}'{suggestion(name, known)}"
    if get_origin(kind) is Literal:
        return f"must be one of {', '.join(get_args(kind))}"
    if isinstance(error, AttributeError) and kind is not None:  # no object where a dataclass stands
        return f"expected {kind.__name__}"
    return str(error) if isinstance(error, UserError) else format_exception(error, kind)


def _mistyped(given: Any, read: Any, path: str = "") -> str:
    """The dotted path of the first value that was converted ("3" to 3, 1.5 to 1); '' if there is none."""
    if isinstance(given, dict) and isinstance(read, dict):
        found = (_mistyped(value, read[key], f"{path}.{key}".strip(".")) for key, value in given.items())
        return next(filter(None, found), "")
    if isinstance(given, list) and isinstance(read, list) and len(given) == len(read):
        pairs = enumerate(zip(given, read, strict=True))
        found = (_mistyped(one, other, f"{path}[{number}]") for number, (one, other) in pairs)
        return next(filter(None, found), "")
    return "" if given == read else path
