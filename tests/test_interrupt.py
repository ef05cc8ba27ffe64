"""SIGINT ends `evolq` at once, wherever it is: one line, status 130, and a run that goes on."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from evolq_jax import interrupt
from evolq_jax.runs.unfinished import continued_run
from evolq_jax.verbs.init_network import SEARCH
from tests.compiling import cache_variables
from tests.small_run import small_config, write_weights

ROOT = Path(__file__).resolve().parent.parent
# Tests that run in the background inherit that SIGINT is ignored.
UNIGNORED = """\
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execv(sys.argv[1], sys.argv[1:])
"""
FILE = """\
from dataclasses import replace
from pathlib import Path
from tests.small_run import small_config
config = small_config(Path("weights.safetensors"))
long = replace(config.search, passes=4000)
config = replace(config, search=long, checkpoint=replace(config.checkpoint, every_seconds=0.0))
"""


@pytest.fixture
def here(tmp_path: Path) -> Path:
    write_weights(tmp_path / "weights.safetensors")
    (tmp_path / "config.py").write_text(FILE)
    return tmp_path


def interrupted(here: Path, *args: str, when: Callable[[], bool]) -> tuple[int, str]:
    """The status, and what was written to stderr after the signal. It ends within two seconds."""
    command = [sys.executable, "-c", UNIGNORED, sys.executable, "-m", "evolq_jax", *args]
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | cache_variables(here / "compiled")
    with subprocess.Popen(
        command, cwd=here, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as process:
        try:
            end = time.monotonic() + 120
            while not when() and time.monotonic() < end:
                assert process.poll() is None
                time.sleep(0.01)
            process.send_signal(signal.SIGINT)
            _, shown = process.communicate(timeout=10)
        finally:
            process.kill()
    return process.returncode, shown.decode()


def later(seconds: float) -> Callable[[], bool]:
    begin = time.monotonic()
    return lambda: time.monotonic() - begin > seconds


@pytest.mark.parametrize("seconds", [0.2, 0.6])
def test_before_anything_has_begun(here: Path, seconds: float) -> None:
    """While Python imports JAX."""
    status, shown = interrupted(here, "search", "config.py", "--run-dir", "mine", when=later(seconds))
    assert status == interrupt.STATUS == 130
    assert shown.splitlines()[-1].startswith("evolq: interrupted")
    assert "Traceback" not in shown


@pytest.mark.parametrize("begun", ["config.json", "init_scales.safetensors", "log.jsonl", "checkpoints"])
def test_a_search_goes_on(here: Path, begun: str) -> None:
    """While images are decoded and programs compile, in the search, and while it saves."""
    mine = here / "a run#1"
    where = ("search", "config.py", "--run-dir", mine.name)
    status, shown = interrupted(here, *where, when=lambda: (mine / begun).exists())
    assert status == 130
    assert shown.splitlines()[-1] == "evolq: interrupted; go on with: evolq search 'a run#1' --resume"
    assert "Traceback" not in shown
    names = {file.name for file in mine.iterdir()}
    lines = len((mine / "log.jsonl").read_text().splitlines()) if "log.jsonl" in names else 0
    again = ("search", mine.name, "--resume")

    def moved() -> bool:
        log = mine / "log.jsonl"
        return log.exists() and len(log.read_text().splitlines()) > lines

    status, shown = interrupted(here, *again, when=moved)
    assert status == 130
    assert all(json.loads(line) for line in (mine / "log.jsonl").read_text().splitlines()[:-1])


def test_of_nested_runs_the_outermost_says_how_to_go_on() -> None:
    assert interrupt.line() == "evolq: interrupted"
    with interrupt.going_on("outer"), interrupt.going_on("inner"):
        assert interrupt.line() == "evolq: interrupted; outer"
    assert interrupt.line() == "evolq: interrupted"


def test_functions_of_a_config_file_need_that_file(tmp_path: Path) -> None:
    config, path = small_config(tmp_path / "weights.safetensors"), tmp_path / "a run"
    with continued_run(path, config, SEARCH):
        assert interrupt.line() == f"evolq: interrupted; go on with: evolq search '{path}' --resume"
    search, path = replace(config.search, fitness="kl+mine", fitness_functions=(mine,)), tmp_path / "b run"
    with continued_run(path, replace(config, search=search), SEARCH):
        again = f"the same command with --run-dir '{path}' goes on"
        assert interrupt.line() == f"evolq: interrupted; {again}"


def mine(student: object, teacher: object) -> float:
    """A fitness term."""
    return 0.0
