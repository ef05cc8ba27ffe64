"""Checks of what a config file or Python puts into a config: types, words and magnitudes."""

import dataclasses
import math
from collections.abc import Callable
from functools import cache
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from evolq_jax.errors import UserError, check_choices

MAX_INT = 2**53  # what float64 counts exactly
MAX_FLOAT = 1e30  # with room for float32 to compute with it


def check_values(config: Any, prefix: str = "") -> None:
    """Refuses values that a field cannot have, in a config (a dataclass) and in the configs inside it.

    Raises:
      UserError: a value is of another type than its field, a word that the field does not take, or a number
        that float32 cannot compute with.
    """
    _check_types(config, prefix)
    check_choices(config, prefix)


def _check_types(config: Any, prefix: str) -> None:
    hints = _hints(type(config))
    for field in dataclasses.fields(config):
        value, key = getattr(config, field.name), prefix + field.name
        if not _fits(value, hints[field.name]):
            text = repr(value) if len(repr(value)) <= 60 else repr(value)[:57] + "..."
            raise UserError(f"{key} must be {_described(hints[field.name])}, not {text}")
        _check_numbers(value, key)
        if dataclasses.is_dataclass(value) and dataclasses.is_dataclass(hints[field.name]):
            _check_types(value, f"{key}.")


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _fits(value: Any, hint: Any) -> bool:
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(_fits(value, part) for part in args)
    if origin is Literal:
        return isinstance(value, str | int)  # `check_choices` knows the words
    if origin is tuple:
        return isinstance(value, tuple) and all(_fits(item, args[0]) for item in value)
    if origin is Callable or hint is Callable:
        return callable(value)
    if origin is type:
        return isinstance(value, type)
    if hint in (int, float):
        kinds = (int,) if hint is int else (int, float)
        return isinstance(value, kinds) and not isinstance(value, bool)
    return not isinstance(hint, type) or isinstance(value, hint)


def _check_numbers(value: Any, key: str) -> None:
    for number in value if isinstance(value, tuple) else (value,):
        if isinstance(number, float) and not (math.isfinite(number) and abs(number) <= MAX_FLOAT):
            raise UserError(f"{key} must be a number of at most {MAX_FLOAT:g}, not {number}")
        if isinstance(number, int) and abs(number) > MAX_INT:
            raise UserError(f"{key} must be at most {MAX_INT}, not {str(number)[:30]}")


def _described(hint: Any) -> str:
    """A type in words."""
    names = {int: "a whole number", float: "a number", bool: "True or False", str: "a text"}
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        words = [_described(part) for part in args if part is not type(None)]
        return " or ".join(dict.fromkeys(words + ["None"] * (type(None) in args)))
    if origin is Literal:
        return "one of " + ", ".join(map(repr, args))
    if origin is tuple:
        return f"a tuple, each item {_described(args[0])}"
    if origin is Callable:
        return "a function"
    if origin is type:
        return "a class"
    return names.get(hint, getattr(hint, "__name__", str(hint)))
