"""The program `evolq`, also as `python -m evolq_jax`."""

import os
import sys

from evolq_jax import interrupt
from evolq_jax.devices.xla_flags import compile_quickly


def main() -> None:
    """Connects the processes if there are several, then runs the command line."""
    interrupt.watch()  # before the imports that take time
    compile_quickly(os.environ)
    from evolq_jax.devices import hosts
    from evolq_jax.errors import UserError

    try:
        hosts.connect_for(sys.argv[1:])
    except UserError as error:
        hosts.leave(f"evolq: error: {error}", 2)
    from evolq_jax.cli import main as cli

    cli.main()


if __name__ == "__main__":
    main()
