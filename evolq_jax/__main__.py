"""The program `evolq`, also as `python -m evolq_jax`."""

import logging
import sys
from collections.abc import Callable

from evolq_jax import interrupt


def main() -> None:
    """Connects the processes if there are several, then runs the command line."""
    interrupt.watch()  # before the imports that take time
    from evolq_jax.devices import hosts
    from evolq_jax.errors import UserError

    try:
        hosts.connect_for(sys.argv[1:])
    except UserError as error:
        hosts.leave(f"evolq: error: {error}", 2)
    _show_warnings(hosts.is_first)
    from evolq_jax.cli import main as cli

    cli.main()


def _show_warnings(is_first: Callable[[], bool]) -> None:
    """Makes each warning of evolq_jax one line. Of several processes only the first shows them."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("evolq: warning: %(message)s"))
    handler.addFilter(lambda record: is_first())
    logger = logging.getLogger("evolq_jax")
    logger.addHandler(handler)
    logger.propagate = False  # other libraries give the root logger a handler too


if __name__ == "__main__":
    main()
