"""The one exception for errors that a user can mend, and checks that raise it."""

import dataclasses
import difflib
from collections.abc import Iterable
from functools import cache
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints


class UserError(Exception):
    """An error that the user can mend. Its one line says what is wrong, where, and what to do.

    The command line prints the message and exits with status 2, without a traceback.
    """


def suggestion(name: str, known: Iterable[str]) -> str:
    """`'; did you mean X?'` for the known name closest to `name`, or an empty string."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean '{close[0]}'?" if close else ""


def check_at_least_one(key: str, value: int) -> None:
    """Refuses a count below one.

    Raises:
      UserError: the number is below one. The message names `key`, the dotted name of the field.
    """
    if value < 1:
        raise UserError(f"{key} must be at least 1, not {value}")


def check_choices(config: Any, prefix: str = "") -> None:
    """Refuses words that a field does not take, in a config (a dataclass) and in the configs inside it.

    The command line checks its own words. This check is for config files and for Python.

    Raises:
      UserError: the type of a field names words (`Literal`), and its value is none of them.
    """
    for name, (words, types) in _choices(type(config)).items():
        value, key = getattr(config, name), prefix + name
        several = isinstance(value, tuple | list)
        for number, item in enumerate(value if several else (value,)):
            own = f"{key}[{number}]" if several else key
            if words and item not in words and not isinstance(item, types):
                known = ", ".join(words) + (" or a number" if int in types else "")
                raise UserError(
                    f"{own} has the unknown value '{item}'{suggestion(str(item), words)} (known: {known})"
                )
            if dataclasses.is_dataclass(item) and str not in types:  # no thing that a name could stand for
                check_choices(item, f"{own}.")


@cache
def _choices(kind: type) -> dict[str, tuple[tuple[str, ...], tuple[type, ...]]]:
    """For each field of a dataclass: the words that it takes (none: any), and the other types it takes."""
    hints = get_type_hints(kind)
    return {field.name: _alternatives(hints[field.name]) for field in dataclasses.fields(kind)}


def _alternatives(hint: Any) -> tuple[tuple[str, ...], tuple[type, ...]]:
    """The words of a `Literal`, or of those in a union or a tuple, and the other types there."""
    if get_origin(hint) is Literal:
        return get_args(hint), ()
    if get_origin(hint) not in (Union, UnionType, tuple):
        return (), (get_origin(hint) or hint,)
    parts = [_alternatives(part) for part in get_args(hint) if part is not Ellipsis]
    words = dict.fromkeys(word for part, _ in parts for word in part)  # each once, in order
    return tuple(words), tuple(kind for _, part in parts for kind in part)
