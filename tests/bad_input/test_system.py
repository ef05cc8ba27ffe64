"""What the system does to a program: no room, no output, a reader that has seen enough, a second process."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.compiling import cache_variables

ROOT = Path(__file__).resolve().parents[2]
Started = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def started(here: Path, tmp_path_factory: pytest.TempPathFactory) -> Started:
    """Runs a command line of the shell, in which `evolq` is the program."""
    compiled = tmp_path_factory.getbasetemp() / "compiled"
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | cache_variables(compiled)
    program = f"{sys.executable} -m evolq_jax"

    def run(command: str) -> subprocess.CompletedProcess[str]:
        line = ["bash", "-o", "pipefail", "-c", command.replace("evolq", program, 1)]
        return subprocess.run(line, cwd=here, env=environment, capture_output=True, text=True, check=False)

    return run


@pytest.mark.parametrize("verb", ["calibrate", "search"])
def test_no_room_for_a_file(started: Started, here: Path, verb: str) -> None:
    """A file may have 9 KiB here: the config fits, scales do not."""
    found = started(f"ulimit -f 9; evolq {verb} config.py --run-dir run")
    assert found.returncode == 2
    assert found.stderr.splitlines()[-1].startswith("evolq: error: cannot write 'run/")
    assert "Traceback" not in found.stderr
    assert not [file.name for file in here.rglob("*.partial")]
    assert not (here / "run" / "init_scales.safetensors").exists()
    assert started(f"evolq {verb} config.py --run-dir run").returncode == 0  # with room again


def test_no_room_for_the_output(started: Started) -> None:
    found = started("evolq models > /dev/full")
    assert found.returncode == 2
    assert found.stderr == "evolq: error: cannot print the output (No space left on device)\n"


def test_no_output(started: Started) -> None:
    found = started("evolq models >&-")
    assert (found.returncode, found.stderr) == (0, "")


def test_a_reader_that_has_seen_enough(started: Started) -> None:
    found = started("evolq search --help-all | head -1")
    assert (found.returncode, found.stderr) == (0, "")
    assert found.stdout.startswith("usage: evolq search")
