"""Things that a config names and Python can pass as objects, such as the links of the calibration chain.

Every such thing has a `name`. A plain dict beside each kind lists by name what evolq_jax brings along. A
thing that Python passes is recorded by its name only, so it cannot be found again from the record.
"""

from collections.abc import Iterable, Mapping
from typing import Protocol, TypeVar

from evolq_jax.errors import UserError, suggestion


class Named(Protocol):
    """A thing with a name."""

    @property
    def name(self) -> str:
        """The name that configs use."""
        ...

    @property
    def does(self) -> str:
        """What it does, in one sentence without a full stop."""
        ...


def first_line(docstring: str | None) -> str:
    """What the first line of a docstring says, as `Named.does` has it."""
    return (docstring or "").strip().partition("\n")[0].removesuffix(".")


Thing = TypeVar("Thing", bound=Named)


def name_of(thing: str | Named) -> str:
    """The name of a thing. A string is a name already."""
    return thing if isinstance(thing, str) else thing.name


def find(given: str | Thing, known: Mapping[str, Thing], what: str) -> Thing:
    """The known thing with a name. A thing itself is returned as it is.

    Args:
      given: a name, or a thing.
      known: the known things, by name.
      what: the beginning of an error, such as `calibration.chain has the unknown initialiser`.

    Raises:
      UserError: the name is unknown.
    """
    if not isinstance(given, str):
        return given
    if given not in known:
        raise UserError(f"{what} '{given}'{suggestion(given, known)} (known: {', '.join(known)})")
    return known[given]


def check_names(given: Iterable[str | Thing], known: Mapping[str, Thing], where: str) -> None:
    """Refuses a passed thing that has the name of a known one, because its record would mean the known one.

    Raises:
      UserError: there is such a thing. The message names `where`, the dotted name of the field.
    """
    for thing in given:
        if not isinstance(thing, str) and known.get(thing.name, thing) != thing:
            raise UserError(
                f"{where} has '{thing.name}', which is not the one that evolq_jax knows by that name: "
                "give it another name"
            )


def only_name_recorded(name: str, noun: str) -> UserError:
    """The error of whoever uses a thing that a run has recorded by its name only."""
    return UserError(
        f"'{name}' is no {noun} that evolq_jax brings along. Python passed it to the run, and only its name "
        "is recorded: go on from that code, or make it a plug-in (docs/extending.md)"
    )
