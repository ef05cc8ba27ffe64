"""What a user waits for: the first run ever, and one whose programs are on the disk.

    python -m benchmarks.first_run
    python -m benchmarks.first_run --jobs quickstart --repeats 3

Each run is a fresh process. The first has an empty folder of compiled programs, the next ones have what it
left there. Images are decoded anew in the first run only if the image cache does not hold them.
"""

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import tyro
from rich.console import Console

from benchmarks.entry import run_or_refuse
from benchmarks.jobs import Options, jobs
from benchmarks.watched import Watched, watch
from evolq_jax.cli.tables import row_table
from evolq_jax.paths import atomic


@dataclass(frozen=True)
class Repeated(Options):
    """What to watch, how often, and where to write it.

    Attributes:
      repeats: pairs of a first and a second run, of which medians are shown.
      json: also write the numbers to this file.
    """

    repeats: int = 1
    json: Path | None = None


def pair(args: list[str]) -> tuple[Watched, Watched]:
    """A first and a second run."""
    with tempfile.TemporaryDirectory() as folder:
        return watch(args, folder), watch(args, folder)


def row(name: str, which: str, runs: list[Watched]) -> dict[str, Any]:
    """Medians over some runs of the same kind."""

    def middle(seconds: list[float | None]) -> float:
        return round(median(one for one in seconds if one is not None), 1)

    return {
        "command": name,
        "run": which,
        "first program s": middle([run.first_program for run in runs]),
        "first generation s": middle([run.first_generation for run in runs]),
        "in all s": middle([run.total for run in runs]),
        "programs": int(median(len(run.programs) for run in runs)),
        "from the disk": int(median(run.read for run in runs)),
    }


def measure(options: Repeated) -> None:
    """Watches each job, and prints a table."""
    rows: list[dict[str, Any]] = []
    for name, args in jobs(options).items():
        pairs = [pair(args) for _ in range(options.repeats)]
        first, second = zip(*pairs, strict=True)
        rows += [row(name, "first", list(first)), row(name, "second", list(second))]
    Console(width=120).print(row_table("what a user waits for", rows[0], [one.values() for one in rows]))
    if options.json:
        with atomic(options.json) as file:
            file.write((json.dumps(rows, indent=2) + "\n").encode())


if __name__ == "__main__":
    run_or_refuse(lambda: measure(tyro.cli(Repeated, description=__doc__)))
