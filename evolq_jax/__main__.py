"""The program `evolq`, also as `python -m evolq_jax`."""

import gc
import os
import sys

from evolq_jax import interrupt
from evolq_jax.devices.xla_flags import compile_quickly


def main() -> None:
    """Connects the processes if there are several, then runs the command line."""
    interrupt.watch()  # before the imports that take time
    compile_quickly(os.environ)
    gc.disable()  # imports make a million objects that stay: to look for garbage there takes 0.3 s
    from evolq_jax.devices import hosts
    from evolq_jax.errors import UserError

    try:
        hosts.connect_for(sys.argv[1:])
    except UserError as error:
        hosts.leave(f"evolq: error: {error}", 2)
    from evolq_jax.cli import main as cli

    gc.freeze()
    gc.enable()
    try:
        cli.main()
    finally:
        gc.freeze()  # nor does the interpreter look for it at its end, which took 0.5 s


if __name__ == "__main__":
    main()
