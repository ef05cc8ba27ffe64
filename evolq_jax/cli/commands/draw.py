"""`evolq draw`."""

import argparse
import math

from evolq_jax.cli.command import Call, Command
from evolq_jax.errors import UserError
from evolq_jax.runs.directory import INDEX
from evolq_jax.verbs.draw import draw_landscapes


def run(call: Call) -> None:
    """Draws."""
    folders = call.options.folders
    draw_landscapes(folders, {name: _limits(low, high) for name, low, high in call.options.limits})
    for folder in folders:
        call.console.print(f"{folder}/{INDEX} shows the pictures", soft_wrap=True)


def _limits(low: str, high: str) -> tuple[float, float]:
    try:
        found = float(low), float(high)
    except ValueError:
        found = (math.nan, math.nan)
    if not all(map(math.isfinite, found)):
        raise UserError(f"--limits takes a loss and two numbers, not '{low}' and '{high}': --limits kl 0 0.5")
    return found


def add_options(parser: argparse.ArgumentParser) -> None:
    """The scans, and limits of losses."""
    parser.add_argument("folders", nargs="+", metavar="SCAN", help="directories of finished landscapes")
    parser.add_argument(
        "--limits",
        nargs=3,
        action="append",
        default=[],
        metavar=("LOSS", "LOW", "HIGH"),
        help="of colours and axes, by loss, e.g. kl 0 0.5 (default: those that hold all scans)",
    )


COMMAND = Command(
    does="draw the pictures of landscapes again, on the same scales in all of them",
    run=run,
    config=None,
    add_options=add_options,
)
