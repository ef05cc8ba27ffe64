"""The entry of these programs: a user's error is one line."""

from collections.abc import Callable

from evolq_jax.devices import hosts
from evolq_jax.errors import UserError


def run_or_refuse(main: Callable[[], None]) -> None:
    """Runs a program; what its user got wrong is one line on stderr and status 2."""
    try:
        main()
    except UserError as error:
        hosts.leave(f"error: {error}", 2)
