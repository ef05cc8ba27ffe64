"""The ways in which people write options, made into the one that tyro reads."""

import re
from collections.abc import Mapping, Sequence
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

_WORDS: dict[str, bool] = {
    **dict.fromkeys(("true", "yes", "on", "1"), True),
    **dict.fromkeys(("false", "no", "off", "0"), False),
}
_NONE = ("none", "null")


def respell(args: Sequence[str], fields: Mapping[str, Any]) -> list[str]:
    """The same options as tyro writes them.

    - A field that is on or off: `--field`, `--field true`, `--field=off`, `--no-field`, `--group.no-field`.
    - No value: `none`, `null` and `None`.
    - Several values: `a b`, `a,b` and `[a, b]`.
    - Underscores as dashes, in names.

    Args:
      args: of the command line, after the config.
      fields: dotted names with dashes -> types, of all fields of the config.

    Returns:
      As many options, in the same order. What is no known field stays as it is.
    """
    found: list[str] = []
    for name, values in _options(args):
        field, given = _field(name, fields)
        if field is None:
            found += [name, *values]
        elif fields[field] is bool:
            found += _flag(field, given, values)
        else:
            found += [f"--{field}", *_values(values, fields[field])]
    return found


def _options(args: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Each option with the words after it. A word before any option stands in an option's place."""
    found: list[tuple[str, list[str]]] = []
    for arg in args:
        if arg.startswith("--") and len(arg) > 2:
            name, equals, value = arg.partition("=")
            found.append((name, [value] if equals else []))
        elif found:
            found[-1][1].append(arg)
        else:
            found.append((arg, []))
    return found


def _field(name: str, fields: Mapping[str, Any]) -> tuple[str | None, bool]:
    """The field that an option names, and whether it says that it is on; None: no field."""
    dashed = name.removeprefix("--").replace("_", "-")
    if not name.startswith("--"):
        return None, True
    if dashed in fields:
        return dashed, True
    # --no-group.field and --group.no-field
    positive = re.sub(r"(^|\.)no-", r"\1", dashed, count=1)
    return (positive, False) if fields.get(positive) is bool and positive != dashed else (None, True)


def _flag(field: str, given: bool, values: Sequence[str]) -> list[str]:
    word = _WORDS.get(values[0].lower()) if values else True
    if word is None:
        return [f"--{field}", *values]
    group, dot, last = field.rpartition(".")
    option = f"--{field}" if given == word else f"--{group}{dot}no-{last}"
    return [option, *values[1:]]


def _values(values: Sequence[str], kind: Any) -> list[str]:
    if _is_several(kind):
        text = " ".join(values)
        return re.split(r"[\s,]+", text.strip("[]() ")) if re.search(r"[,\[\(]", text) else list(values)
    takes_none = NoneType in get_args(kind)
    return ["None" if takes_none and value.lower() in _NONE else value for value in values]


def _is_several(kind: Any) -> bool:
    kinds = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    return any(get_origin(each) is tuple for each in kinds)
