"""The plan of a search against what then happens: seconds and memory, on random weights and images.

    python -m benchmarks.plan
    python -m benchmarks.plan --models vit_large_patch16_224 --settings strong --chunks 4 --memory 20GiB

A search is planned in one process and run in another, and both compile anew. Searches are short: few
images, one generation of few candidates. `--detail FILE` keeps where seconds and memory went. Nothing else
should run: the plan measures this machine's speed.
"""

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.entry import run_or_refuse
from benchmarks.families import ROOT, prepare
from benchmarks.memory import peak_mib
from benchmarks.timing import Compilations, count_compilations
from evolq_jax.config.experiment import Experiment, QuantConfig
from evolq_jax.config.presets import faithful, strong
from evolq_jax.models.registry import get_entry
from evolq_jax.pipeline.watcher import Silent, Standing
from evolq_jax.runs.config_json import from_json, to_json
from evolq_jax.typing import Progress, no_progress
from evolq_jax.verbs.search.plan import plan_search
from evolq_jax.verbs.search.run import run_search

MODELS = (
    "vit_tiny_patch16_224",
    "vit_base_patch16_224",
    "vit_large_patch16_224",
    "swin_tiny_patch4_window7_224",
    "swin_base_patch4_window7_224",
)


def ranges(config: Experiment) -> Experiment:
    """Observed ranges alone, then the search."""
    return replace(config, calibration=replace(config.calibration, chain=("ranges",)))


def paper(config: Experiment) -> Experiment:
    """The released code's settings: every site quantized, integer LayerNorm."""
    return faithful(replace(config, quant=replace(config.quant, scheme="fully_quantized")))


SETTINGS: dict[str, Callable[[Experiment], Experiment]] = {"ranges": ranges, "strong": strong, "paper": paper}


@dataclass
class Stage:
    """A part of a run: what it took."""

    name: str
    seconds: float
    compiling: float  # seconds of it
    programs: int
    peak: float  # MiB, of the process


class Stages(Silent):
    """Watches a run: the seconds, the compilations and the peak memory of its stages."""

    def __init__(self, compiled: Compilations) -> None:
        self.stages: list[Stage] = []
        self._compiled = compiled
        self._begin("loading")

    def stage(self, name: str) -> Progress:
        """Ends the stage before."""
        self.end()
        self._begin(name)
        return no_progress

    def standing(self, standing: Standing) -> None:
        """The first ends the teacher's stage."""
        del standing
        if not self._name.startswith("search"):
            self.stage("search")

    def end(self) -> None:
        """Ends the last stage."""
        new = self._compiled.seconds[self._count :]
        seconds = time.monotonic() - self._began
        self.stages.append(Stage(self._name, seconds, sum(new), len(new), peak_mib()))

    def _begin(self, name: str) -> None:
        reset_peak()
        self._name, self._began, self._count = name, time.monotonic(), len(self._compiled.seconds)


def reset_peak() -> None:
    """Lets Linux forget the most memory that the process has had, so that stages can be told apart."""
    file = Path("/proc/self/clear_refs")
    if file.exists():
        file.write_text("5")


def planned(config: Experiment) -> dict[str, Any]:
    """The plan of a search, and what it took to make."""
    began = time.monotonic()
    plan = plan_search(config)
    return {**vars(plan), "took": time.monotonic() - began, "peak": peak_mib()}


def happened(config: Experiment) -> dict[str, Any]:
    """A search, stage by stage."""
    with tempfile.TemporaryDirectory() as folder, count_compilations() as compiled:
        began, watcher = time.monotonic(), Stages(compiled)
        run_search(config, Path(folder) / "run", watcher)
        watcher.end()
        return {"took": time.monotonic() - began, "stages": [vars(stage) for stage in watcher.stages]}


def child(function: str, path: str) -> None:
    """Plans or runs the config of a file, and prints what is found as JSON."""
    config = from_json(Path(path).read_text(), path)
    print(json.dumps({"planned": planned, "happened": happened}[function](config)))


def in_process(code: str, *arguments: Any) -> Any:
    """What a new process prints last, from JSON."""
    call = f"from benchmarks.plan import {code}; {code}(*{arguments!r})"
    command = [sys.executable, "-c", call]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    lines = done.stdout.splitlines()
    return json.loads(lines[-1]) if lines else None


def write_inputs(model: str, images: int, folder: str) -> None:
    """Random weights and images, and the config of a short search on them."""
    config = prepare(model, images, Path(folder))
    search = replace(config.search, batch_size=None, generations=1, population_size=2)
    config = replace(config, search=search, quant=QuantConfig("matmul", weight_bits=4, activation_bits=8))
    (Path(folder) / "search.json").write_text(to_json(config))


def cases(model: str, args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Every setting of one network, planned and run."""
    with tempfile.TemporaryDirectory() as folder:
        in_process("write_inputs", model, args.images, folder)
        base, file = (
            from_json((Path(folder) / "search.json").read_text(), "config"),
            Path(folder) / "case.json",
        )
        for setting, chunk in itertools.product(args.settings, args.chunks):
            file.write_text(to_json(with_chunk(SETTINGS[setting](base), chunk, args.memory)))
            found = {name: in_process("child", name, str(file)) for name in ("planned", "happened")}
            yield {"network": model, "setting": setting, "chunk": chunk, **found}


def with_chunk(config: Experiment, chunk: int, memory: str | None) -> Experiment:
    """The config with so many images at once, everywhere."""
    return replace(
        config,
        search=replace(config.search, image_chunk=chunk),
        calibration=replace(config.calibration, image_chunk=chunk),
        evaluation_batch=chunk,
        memory=memory,
    )


def row(case: dict[str, Any]) -> dict[str, Any]:
    """The table's line."""
    plan, run = case["planned"], case["happened"]
    peak = max(stage["peak"] for stage in run["stages"])
    return {
        **{name: case[name] for name in ("network", "setting", "chunk")},
        "planned s": f"{plan['estimated_seconds']:.0f}",
        "took s": f"{run['took']:.0f}",
        "ratio s": f"{plan['estimated_seconds'] / run['took']:.2f}",
        "planned MiB": f"{plan['estimated_memory_mib']}",
        "peak MiB": f"{peak:.0f}",
        "ratio MiB": f"{plan['estimated_memory_mib'] / peak:.2f}",
    }


def main() -> None:
    """Prints the table in Markdown."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--settings", nargs="+", default=list(SETTINGS), choices=list(SETTINGS))
    parser.add_argument("--chunks", nargs="+", type=int, default=[4, 2], help="images at once")
    parser.add_argument(
        "--images", type=int, default=8, help="calibration images, and as many to evaluate on"
    )
    parser.add_argument("--memory", help="as evolq search takes it")
    parser.add_argument("--detail", type=Path, help="write all that was found to this file, a line a case")
    args = parser.parse_args()
    for model in args.models:
        get_entry(model)  # refused here, not in the process that measures it
    every = itertools.chain.from_iterable(cases(model, args) for model in args.models)
    for number, case in enumerate(every):
        cells = row(case)
        if not number:
            print("| " + " | ".join(cells) + " |\n" + "|---" * len(cells) + "|")
        print("| " + " | ".join(map(str, cells.values())) + " |", flush=True)
        if args.detail:
            with args.detail.open("a") as file:
                file.write(json.dumps(case) + "\n")


if __name__ == "__main__":
    run_or_refuse(main)
