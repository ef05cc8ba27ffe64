"""The options that studies share, and one line for a user's error."""

import argparse
from collections.abc import Callable
from pathlib import Path

from evolq_jax.devices import hosts
from evolq_jax.errors import UserError


def study_parser(description: str | None, out: str, seeds: bool = True) -> argparse.ArgumentParser:
    """The options that studies share. `out` lies in `runs`."""
    parser = argparse.ArgumentParser(description=str(description).splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="real weights and images")
    parser.add_argument(
        "--out", type=Path, default=Path("runs") / out, help="where results lie; finished ones stay"
    )
    if seeds:
        parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    return parser


def run_or_refuse(main: Callable[[], None]) -> None:
    """Runs a study; what its user got wrong is one line on stderr and status 2."""
    try:
        main()
    except UserError as error:
        hosts.leave(f"error: {error}", 2)
