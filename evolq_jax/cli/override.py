"""Single fields of a config set from the command line, as in `--search.passes 3`."""

import contextlib
import dataclasses
import io
import textwrap
from collections.abc import Sequence
from itertools import dropwhile, takewhile
from types import NoneType
from typing import Any, TypeVar, get_args, get_type_hints

import tyro
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from evolq_jax.cli.spelling import respell
from evolq_jax.config.named import KINDS, named_kind
from evolq_jax.errors import UserError, suggestion
from evolq_jax.named import name_of

Config = TypeVar("Config")
_registry = ConstructorRegistry()


@_registry.primitive_rule
def _by_name(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    """Things that have names are given by name on the command line, none as `None`."""
    known, takes_none = named_kind(info.type), NoneType in get_args(info.type)
    if known is None:
        return None
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=known.noun.upper().replace(" ", "-"),
        instance_from_str=lambda args: None if takes_none and args[0] == "None" else args[0],
        is_instance=lambda given: isinstance(given, str | known.kind) or (takes_none and given is None),
        str_from_instance=lambda given: ["None" if given is None else name_of(given)],
    )


def override(config: Config, args: Sequence[str], verb: str, options: Sequence[str] = ()) -> Config:
    """The config with `--field.name value` pairs put in, typed by the config's dataclasses.

    Args:
      config: what to change.
      args: the pairs.
      verb: of the command line, for messages.
      options: other options of the command line, to suggest where one is misspelt.

    Raises:
      UserError: a field is unknown, a value is of the wrong type or range, or an argument is of no field.
    """
    framed, fields = io.StringIO(), settable_fields(type(config))
    try:
        with contextlib.redirect_stderr(framed):
            changed, unknown = tyro.cli(
                type(config),
                default=config,
                args=respell(args, fields),
                prog=f"evolq {verb} CONFIG",
                return_unknown_args=True,
                registry=_registry,
            )
    except SystemExit:
        raise UserError(_unframed(framed.getvalue())) from None
    for arg in unknown:
        if arg.startswith("-"):
            name = arg.split("=")[0].replace("_", "-")
            if name in options:
                raise UserError(f"`evolq {verb}` has no option '{name}' (`evolq {verb} --help` lists all)")
            hint = suggestion(name, [*options, *(f"--{field}" for field in fields)])
            raise UserError(f"unknown option '{name}'{hint} (`evolq {verb} CONFIG --help-all` lists all)")
        raise UserError(f"unexpected argument '{arg}'; fields are set as in --search.passes 3")
    return changed


def _unframed(message: str) -> str:
    """The first paragraph of a message in tyro's frame, without its title."""

    def is_rule(line: str) -> bool:
        return not line.strip("─-")

    _, *lines = [line.strip(" │╭╮╰╯") for line in message.splitlines() if line.strip()] or [""]
    return " ".join(takewhile(lambda line: not is_rule(line), dropwhile(is_rule, lines)))


def settable_fields(kind: type, prefix: str = "") -> dict[str, Any]:
    """Dotted names and types of all fields of nested dataclasses that an option can set."""
    found: dict[str, Any] = {}
    for name, hint in get_type_hints(kind).items():
        if dataclasses.is_dataclass(hint):
            found |= settable_fields(hint, f"{prefix}{name}.")  # type: ignore[arg-type]
        elif named_kind(hint) or not any(dataclasses.is_dataclass(part) for part in get_args(hint)):
            found[(prefix + name).replace("_", "-")] = hint
    return found


def print_names() -> None:
    """Prints what the names of links and the like stand for."""
    for known in KINDS:
        print(f"\n{known.noun}s:")
        width = max(map(len, known.things))
        for name, thing in known.things.items():
            indent = " " * (width + 3)
            print(textwrap.fill(f"  {name:<{width}} {thing.does}", 80, subsequent_indent=indent))


def print_fields(kind: type, config: Any, verb: str) -> None:
    """Every field with its type, its meaning and its value in `config`; None: its default."""
    default = {} if config is None else {"default": config}
    with contextlib.suppress(SystemExit):
        tyro.cli(kind, args=["--help"], prog=f"evolq {verb} CONFIG", registry=_registry, **default)
