"""Wrong commands, a line each in `commands.txt`: every verb, every kind of value."""

import shlex
from pathlib import Path

import pytest

from tests.bad_input.conftest import Refuse

LINES = (Path(__file__).parent / "commands.txt").read_text(encoding="utf-8").splitlines()
CASES = [tuple(line.split(" | ")) for line in LINES if not line.startswith("#")]


def test_there_are_many() -> None:
    assert len(CASES) >= 195
    assert len({command.split()[0] for command, _ in CASES}) >= 10  # verbs


@pytest.mark.parametrize(("command", "message"), CASES, ids=[command for command, _ in CASES])
def test_a_wrong_command_is_one_line(refuse: Refuse, command: str, message: str) -> None:
    assert refuse(*shlex.split(command)).startswith(message)
