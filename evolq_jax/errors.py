"""The one exception for what a user can get wrong, and checks that raise it."""

import dataclasses
import difflib
from collections.abc import Iterable
from functools import cache
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints


class UserError(Exception):
    """Something the user can mend: one line saying what is wrong, where, and what to do.

    The command line prints the message and exits with status 2, without a traceback.
    """


def suggestion(name: str, known: Iterable[str]) -> str:
    """`'; did you mean X?'` for the known name closest to `name`, or an empty string."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean '{close[0]}'?" if close else ""


def check_at_least_one(key: str, value: int) -> None:
    """Refuses a number that counts something and is below one.

    Raises:
      UserError: it is; the message names `key`, the dotted name of the field.
    """
    if value < 1:
        raise UserError(f"{key} must be at least 1, not {value}")


def check_choices(config: Any, prefix: str = "") -> None:
    """Refuses a word that its field does not take, in a config (a dataclass) and in those it holds.

    The command line checks what it is given by itself; this is for config files and for Python.

    Raises:
      UserError: a field whose type names words (`Literal`) has another one.
    """
    for name, words in _choices(type(config)).items():
        value, key = getattr(config, name), prefix + name
        several = isinstance(value, tuple)
        for number, item in enumerate(value if several else (value,)):
            own = f"{key}[{number}]" if several else key
            if words and isinstance(item, str) and item not in words:
                known = f"{suggestion(item, words)} (known: {', '.join(words)})"
                raise UserError(f"{own} has the unknown value '{item}'{known}")
            if dataclasses.is_dataclass(item):
                check_choices(item, f"{own}.")


@cache
def _choices(kind: type) -> dict[str, tuple[str, ...]]:
    """The words that each field of a dataclass takes; none: any."""
    return {name: tuple(dict.fromkeys(_words(hint))) for name, hint in get_type_hints(kind).items()}


def _words(hint: Any) -> tuple[str, ...]:
    """Of a `Literal`, or of one in a union or a tuple."""
    if get_origin(hint) is Literal:
        return get_args(hint)
    if get_origin(hint) not in (Union, UnionType, tuple) or str in get_args(hint):
        return ()
    return tuple(word for part in get_args(hint) for word in _words(part))
