"""The command line of every benchmark: options in, tables and JSON out."""

import json
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

import jax
import tyro
from rich.console import Console

from benchmarks.entry import run_or_refuse
from benchmarks.subject import Options, Subject, load
from evolq_jax.cli.tables import row_table
from evolq_jax.paths import atomic

Measure = Callable[[Subject, Options], list[dict[str, Any]]]  # rows with the same columns


def main(description: str | None, measures: Mapping[str, Measure]) -> None:
    """Runs the measures one after the other; prints each as a table under its title."""
    options = tyro.cli(Options, description=description)
    run_or_refuse(lambda: _measure(options, measures))


def _measure(options: Options, measures: Mapping[str, Measure]) -> None:
    console, report = Console(width=None if sys.stdout.isatty() else 120), dict[str, Any]()
    with jax.default_matmul_precision("float32"):
        subject = load(options)
        report["setting"] = setting(subject, options)
        console.print(", ".join(f"{name} {value}" for name, value in report["setting"].items()))
        for title, measure in measures.items():
            report[title] = rows = measure(subject, options)
            console.print(row_table(title, rows[0], [row.values() for row in rows]))
    report["setting"]["load at the end"] = round(os.getloadavg()[0], 2)
    if options.json:
        with atomic(options.json) as file:
            file.write((json.dumps(report, indent=2) + "\n").encode())


def setting(subject: Subject, options: Options) -> dict[str, Any]:
    """What the numbers depend on."""
    return {
        "device": jax.devices()[0].device_kind,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "jax": jax.__version__,
        "weights": subject.weights,
        "images": f"{len(subject.pixels)} ({subject.images})",
        "repeats": num_repeats(options),
        "load at the start": round(os.getloadavg()[0], 2),
    }


def num_repeats(options: Options) -> int:
    """Rounds of measurements."""
    return 1 if options.quick else options.repeats
