"""The one exception for what a user can get wrong."""

import difflib
from collections.abc import Iterable


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
