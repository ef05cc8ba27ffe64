"""Several local processes with one CPU device each, connected by gloo."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.compiling import cache_variables

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 480.0  # seconds: machines that run tests may be busy
PASSES = 12  # of 4 visits: long enough to be killed in
CONFIG = f"""\
from dataclasses import replace
from pathlib import Path
from tests.small_run import small_config
config = small_config(Path("weights.safetensors"))
config = replace(config, search=replace(config.search, passes={PASSES}))
"""
RTOL = 1e-4  # of losses, against one process: other chunks of images round otherwise

pytestmark = pytest.mark.slow


class Ended(NamedTuple):
    status: int
    out: str
    err: str


class Programs:
    """`evolq` in several processes, in one folder."""

    def __init__(self, folder: Path, weights: Path) -> None:
        self.folder = folder
        (folder / "config.py").write_text(CONFIG)
        (folder / "weights.safetensors").symlink_to(weights)
        self.environment = os.environ | {
            "PYTHONPATH": str(ROOT),
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": "",
            "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",  # as in these tests' own process
            **cache_variables(folder / "compiled"),  # their own: some of these processes are killed
        }

    def start(self, count: int, *args: str, folders: tuple[Path, ...] = ()) -> list["subprocess.Popen[str]"]:
        with socket.socket() as free:
            free.bind(("localhost", 0))
            address = f"localhost:{free.getsockname()[1]}"
        command = [sys.executable, "-m", "evolq_jax", *args, "--coordinator", address]
        command += ["--num-processes", str(count), "--process-id"]
        return [
            subprocess.Popen(
                [*command, str(number)],
                cwd=folders[number] if folders else self.folder,
                env=self.environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for number in range(count)
        ]

    def run(self, count: int, *args: str, folders: tuple[Path, ...] = ()) -> list[Ended]:
        return wait(self.start(count, *args, folders=folders))

    def run_alone(self, *args: str) -> None:
        """One process that knows of no others. It compiles as they do, else losses would round otherwise."""
        command = [sys.executable, "-m", "evolq_jax", *args]
        subprocess.run(command, cwd=self.folder, env=self.environment, check=True, timeout=PATIENCE)


def wait(processes: list["subprocess.Popen[str]"], seconds: float = PATIENCE) -> list[Ended]:
    end, ended = time.monotonic() + seconds, list[Ended]()
    try:
        for process in processes:
            out, err = process.communicate(timeout=max(end - time.monotonic(), 0.1))
            ended.append(Ended(process.returncode, out, err))
    finally:
        for process in processes:
            process.kill()
    return ended


def until(processes: list["subprocess.Popen[str]"], happened: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not happened():
        if time.monotonic() > end or any(process.poll() is not None for process in processes):
            for process in processes:
                process.kill()
            raise AssertionError(wait(processes))
        time.sleep(0.01)


def last_saved(run: Path) -> int:
    names = [path.name for path in (run / "checkpoints").glob("*")]
    return max((int(name) for name in names if name.isdigit()), default=0)


def outcome(run: Path) -> dict[str, Any]:
    """All that must not depend on kills: every file, but for times and the settings of checkpoints."""
    files = {file.name: file.read_bytes() for file in run.iterdir() if file.name != "config.json"}
    result, log = json.loads(files.pop("result.json")), files.pop("log.jsonl").decode().splitlines()
    lines = [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in log]
    return {"files": files, "log": lines, "result": {k: v for k, v in result.items() if "seconds" not in k}}


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory, weights: Path) -> Programs:
    return Programs(tmp_path_factory.mktemp("processes"), weights)


@pytest.fixture(scope="module")
def two(programs: Programs) -> list[Ended]:
    return programs.run(2, "search", "config.py", "--run-dir", "two")


def check_like_one(several: Path, one: Path) -> None:
    """The same search and the same images; losses but for rounding."""
    here, there = outcome(several), outcome(one)
    provenances = (here["result"]["provenance"], there["result"]["provenance"])
    assert provenances[0]["processes"] > provenances[1]["processes"] == 1
    assert provenances[0]["fingerprints"] == provenances[1]["fingerprints"]
    assert here["result"]["moves"] == there["result"]["moves"]
    for name in ("float", "init", "final"):
        for metric, value in there["result"][name].items():
            assert here["result"][name][metric] == pytest.approx(value, rel=RTOL, abs=1e-6)
    losses = [[line["fitness"] for line in found["log"]] for found in (here, there)]
    np.testing.assert_allclose(*losses, rtol=RTOL)
    ours, theirs = (load_file(run / "scales.safetensors") for run in (several, one))
    assert sorted(ours) == sorted(theirs)
    for name, scale in theirs.items():
        np.testing.assert_allclose(ours[name], scale, rtol=RTOL, atol=1e-7, err_msg=name)


def test_two_processes_are_like_one(programs: Programs, two: list[Ended]) -> None:
    assert [ended.status for ended in two] == [0, 0], two
    assert "evaluations in" in two[0].out
    assert "evaluations in" not in two[1].out
    programs.run_alone("search", "config.py", "--run-dir", "one")
    check_like_one(programs.folder / "two", programs.folder / "one")


def test_four_processes_are_like_one(programs: Programs) -> None:
    """With shares of other sizes: 30 images to evaluate, of 7 or 8 each."""
    changes = ("--search.passes", "1", "--search.population-size", "2", "--data.num-calibration", "10")
    mesh = ("--mesh", "candidate=2,data=2")
    ended = programs.run(4, "search", "config.py", "--run-dir", "four", *changes, *mesh)
    assert [each.status for each in ended] == [0] * 4, ended
    programs.run_alone("search", "config.py", "--run-dir", "one of four", *changes)
    check_like_one(programs.folder / "four", programs.folder / "one of four")


def test_what_is_killed_goes_on(programs: Programs, two: list[Ended]) -> None:
    """SIGTERM to one process stops both where they agree; SIGKILL of one stops the other."""
    run, search = programs.folder / "killed", ("search", "config.py", "--run-dir", "killed")
    often = ("--checkpoint.every-seconds", "0")
    processes = programs.start(2, *search, *often)
    until(processes, lambda: last_saved(run) >= 2)
    processes[1].send_signal(signal.SIGTERM)
    ended = wait(processes)
    assert [each.status for each in ended] == [75, 75], ended
    assert "evolq: stopped by SIGTERM; go on with: evolq search killed --resume" in ended[0].err
    assert "evolq: stopped" not in ended[1].err

    saved = last_saved(run)
    processes = programs.start(2, *search, *often)
    until(processes, lambda: last_saved(run) > saved)
    processes[1].send_signal(signal.SIGKILL)
    ended = wait(processes, 60.0)
    assert [each.status for each in ended] == [75, -signal.SIGKILL], ended
    assert "evolq: another process of this run has died or cannot be reached" in ended[0].err

    ended = programs.run(2, *search)
    assert [each.status for each in ended] == [0, 0], ended
    assert two[0].status == 0
    assert outcome(run) == outcome(programs.folder / "two")


def test_the_error_of_one_ends_all(programs: Programs, tmp_path: Path) -> None:
    (tmp_path / "config.py").write_text(CONFIG)  # but no weights
    ended = programs.run(2, "search", "config.py", "--run-dir", "wrong", folders=(programs.folder, tmp_path))
    assert [each.status for each in ended] == [2, 2], ended
    lines = [line for each in ended for line in each.err.splitlines() if line.startswith("evolq:")]
    assert len(lines) == 1, lines
    assert "weights.safetensors" in lines[0]
