"""Things that a config names and Python may pass itself, such as the links of the calibration chain.

Every such thing has a `name`. What evolq_jax brings along is listed by name in a plain dict beside its kind.
What else Python passes is recorded by its name alone, so it cannot be found again from there.
"""

from collections.abc import Iterable, Mapping
from typing import Protocol, TypeVar

from evolq_jax.errors import UserError, suggestion


class Named(Protocol):
    """Whatever has a name."""

    @property
    def name(self) -> str:
        """What configs call it."""
        ...


Thing = TypeVar("Thing", bound=Named)


def name_of(thing: str | Named) -> str:
    """The name, of a thing or given as such."""
    return thing if isinstance(thing, str) else thing.name


def find(given: str | Thing, known: Mapping[str, Thing], what: str) -> Thing:
    """The known thing of a name; a thing itself is returned as it is.

    Args:
      given: a name, or a thing.
      known: what names stand for.
      what: how errors begin, as in `calibration.chain has the unknown initialiser`.

    Raises:
      UserError: the name is unknown.
    """
    if not isinstance(given, str):
        return given
    if given not in known:
        raise UserError(f"{what} '{given}'{suggestion(given, known)} (known: {', '.join(known)})")
    return known[given]


def check_names(given: Iterable[str | Thing], known: Mapping[str, Thing], where: str) -> None:
    """Refuses a passed thing that has the name of another: its record would stand for that one.

    Raises:
      UserError: there is one; the message names `where`, the dotted name of the field.
    """
    for thing in given:
        if not isinstance(thing, str) and known.get(thing.name, thing) != thing:
            raise UserError(
                f"{where} has '{thing.name}', which is not the one that evolq_jax knows by that name: "
                "give it another name"
            )
