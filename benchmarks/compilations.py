"""How many programs a command compiles, and how long each takes, in a process that has none before.

    python -m benchmarks.compilations
    python -m benchmarks.compilations --jobs quickstart

Several programs are compiled at the same time, so their seconds add up to more than the wait.
"""

import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.console import Console

from benchmarks.entry import run_or_refuse
from benchmarks.jobs import Options, jobs
from benchmarks.watched import Watched, watch
from evolq_jax.cli.tables import row_table
from evolq_jax.paths import atomic

LONGEST = 8  # programs that are listed by name


@dataclass(frozen=True)
class Counted(Options):
    """What to watch, and where to write it.

    Attributes:
      json: also write the numbers to this file.
    """

    json: Path | None = None


def by_name(watched: Watched) -> dict[str, list[float]]:
    """The seconds of every program, those that took longest first."""
    found = defaultdict[str, list[float]](list)
    for name, seconds in watched.programs:
        found[name].append(seconds)
    return dict(sorted(found.items(), key=lambda item: -sum(item[1])))


def measure(options: Counted) -> None:
    """Watches each job, and prints what it compiled."""
    console, report = Console(width=120), {}
    for name, args in jobs(options).items():
        watched = watch(args, "off")
        seconds = by_name(watched)
        title = (
            f"{name}: {len(watched.programs)} programs, {sum(map(sum, seconds.values())):.1f} s in XLA, "
            f"{watched.tracing:.1f} s to trace"
        )
        longest = list(seconds.items())[:LONGEST]
        rows = [(program, len(each), round(sum(each), 2)) for program, each in longest]
        console.print(row_table(title, ("program", "times", "seconds"), rows))
        report[name] = {program: [round(one, 3) for one in each] for program, each in seconds.items()}
    if options.json:
        with atomic(options.json) as file:
            file.write((json.dumps(report, indent=2) + "\n").encode())


if __name__ == "__main__":
    run_or_refuse(lambda: measure(tyro.cli(Counted, description=__doc__)))
