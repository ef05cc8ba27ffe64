"""A config as JSON, as it stands in a run's directory."""

import dataclasses
import json
from collections.abc import Callable
from typing import Any, Literal, get_args, get_origin

from cattrs import BaseValidationError, ForbiddenExtraKeysError, transform_error
from cattrs.preconf.json import make_converter
from cattrs.v import format_exception

from evolq_jax.config.experiment import Experiment
from evolq_jax.config.named import named_kind
from evolq_jax.errors import UserError, suggestion
from evolq_jax.named import name_of

_converter = make_converter(forbid_extra_keys=True)


def _is_function(kind: Any) -> bool:
    return get_origin(kind) is Callable


def _name(function: Callable[..., Any]) -> str:
    """Functions of a config file are recorded by name."""
    return function.__name__


def _recorded(name: str, kind: Any) -> Callable[..., Any]:
    """In the place of a recorded function: one that says so when it is called."""
    del kind

    def missing(*args: Any) -> Any:
        raise UserError(
            f"'{name}' is a function of the config file that the run was made from, and only its name is "
            "recorded: use that file"
        )

    missing.__name__ = name
    return missing


_converter.register_unstructure_hook_func(_is_function, _name)
_converter.register_structure_hook_func(_is_function, _recorded)


def _found(name: Any, kind: Any) -> Any:
    """What a recorded name stands for; things that Python passed are recorded by name too."""
    known = named_kind(kind)
    if isinstance(name, str) and known is not None and name not in known.things:
        raise UserError(
            f"'{name}' is no {known.noun} that evolq_jax brings along: Python passed it to the run, and only "
            "its name is recorded; make the run anew from there"
        )
    return name


_converter.register_unstructure_hook_func(lambda kind: named_kind(kind) is not None, name_of)
_converter.register_structure_hook_func(lambda kind: named_kind(kind) is not None, _found)


def to_json(config: Experiment) -> str:
    """The config as JSON, every field spelt out."""
    return json.dumps(_converter.unstructure(config), indent=2) + "\n"


def from_json(text: str, where: str) -> Experiment:
    """The inverse of `to_json`; fields that `text` lacks take their defaults.

    Args:
      text: JSON.
      where: what to call the text's source in errors.

    Raises:
      UserError: it is no JSON, or has an unknown key or a value of the wrong type or range.
    """
    try:
        given = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{where}: not JSON: {error}") from error
    if not isinstance(given, dict):
        raise UserError(f"{where}: not a config but {text.strip()[:40]}")
    try:
        config = _converter.structure(given, Experiment)
    except BaseValidationError as error:
        reasons = "; ".join(transform_error(error, format_exception=_reason))
        raise UserError(f"{where}: not a config: {reasons}") from error
    mistyped = _mistyped(given, json.loads(to_json(config)))
    if mistyped:
        raise UserError(f"{where}: not a config: {mistyped} has a value of the wrong type")
    return config


def _reason(error: BaseException, kind: type | None) -> str:
    if isinstance(error, ForbiddenExtraKeysError):
        name = min(error.extra_fields)
        known = [field.name for field in dataclasses.fields(error.cl)]
        return f"unknown key '{name}'{suggestion(name, known)}"
    if get_origin(kind) is Literal:
        return f"must be one of {', '.join(get_args(kind))}"
    return str(error) if isinstance(error, UserError) else format_exception(error, kind)


def _mistyped(given: Any, read: Any, path: str = "") -> str:
    """The dotted path of the first value that was converted ("3" to 3, 1.5 to 1); '' if there is none."""
    if isinstance(given, dict):
        found = (_mistyped(value, read[key], f"{path}.{key}".strip(".")) for key, value in given.items())
        return next(filter(None, found), "")
    return "" if given == read else path
