"""Kills a search again and again, and compares its result with that of an undisturbed one. Measures saving.

    python benchmarks/kill.py --kills 100

The network is a ViT for the digits with random weights. A kill takes two to five seconds, mostly for the
start of a process.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import tyro
from rich.console import Console

from benchmarks.entry import run_or_refuse
from evolq_jax.cli.tables import fact_table
from evolq_jax.config.experiment import CheckpointConfig, Experiment
from evolq_jax.runs.checkpoints import Checkpoints
from evolq_jax.verbs.search.run import run_search
from tests.killing import Killed
from tests.small_run import small_config, write_weights

EVERY_VISIT = CheckpointConfig(every_seconds=0.0)
PASSES_PER_KILL = 2  # more than a kill lets happen


@dataclass(frozen=True)
class Options:
    """How often.

    Attributes:
      kills: over one search.
      seed: of the moments.
    """

    kills: int = 100
    seed: int = 0


def make_config(folder: Path, passes: int) -> Experiment:
    """A search with checkpoints at every visit."""
    config = small_config(write_weights(folder / "weights.safetensors"), checkpoint=EVERY_VISIT)
    return replace(config, search=replace(config.search, passes=passes, holdout=0.5))


def measure_kills(options: Options, folder: Path) -> dict[str, float | int | str]:
    """What happened, and whether the result is the same bit for bit."""
    config = make_config(folder, max(40, PASSES_PER_KILL * options.kills))
    peaceful, killed = (Killed(config, folder, name) for name in ("peaceful", "killed"))
    peaceful.finish()
    kills = killed.kill_many(options.kills, options.seed)
    killed.finish()
    same = killed.outcome() == peaceful.outcome()
    counts = {
        f"killed {name.replace('_', ' ')}": n for name, n in kills._asdict().items() if n != kills.seconds
    }
    return {**counts, "seconds": round(kills.seconds), "equal bit for bit": "yes" if same else "NO"}


def measure_saving(folder: Path) -> dict[str, float | int | str]:
    """How long the search waits for a checkpoint, and the share of its time at the default interval."""
    waits: list[float] = []
    flush: Callable[[Checkpoints], None] = Checkpoints.flush

    def timed(self: Checkpoints) -> None:
        began = time.perf_counter()
        flush(self)
        waits.append(time.perf_counter() - began)

    Checkpoints.flush = timed
    try:
        # Far apart enough that none waits for the one before, as at the default interval.
        config = replace(make_config(folder, 200), checkpoint=CheckpointConfig(every_seconds=0.2))
        result = run_search(config, folder / "saving")
    finally:
        Checkpoints.flush = flush
    every = CheckpointConfig().every_seconds
    return {
        "checkpoints": len(waits),
        "seconds of search": result.seconds_search,
        "milliseconds a checkpoint, median": round(1e3 * median(waits), 1),
        "milliseconds a checkpoint, worst": round(1e3 * max(waits), 1),
        f"% of search time, one in {every:g} s, median": round(100 * median(waits) / every, 3),
        f"% of search time, one in {every:g} s, worst": round(100 * max(waits) / every, 3),
    }


def main() -> None:
    """Prints both; status 1 where the results differ."""
    options, console = tyro.cli(Options, description=__doc__), Console()
    with tempfile.TemporaryDirectory() as folder:
        console.print(fact_table("saving", measure_saving(Path(folder))))
        kills = measure_kills(options, Path(folder))
    console.print(fact_table("kills", kills))
    sys.exit(kills["equal bit for bit"] != "yes")


if __name__ == "__main__":
    run_or_refuse(main)
