"""Every study begins as its help says, and refuses missing data in one line."""

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from studies.common.entry import run_or_refuse

ROOT = Path(__file__).resolve().parents[2]
STUDIES = sorted(file.stem for file in (ROOT / "studies").glob("*.py") if file.stem != "__init__")


@pytest.mark.parametrize("name", STUDIES)
def test_missing_data_is_one_line(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        sys, "argv", [name, "--data", str(tmp_path / "missing"), "--out", str(tmp_path / "out")]
    )
    with pytest.raises(SystemExit) as raised:
        run_or_refuse(import_module(f"studies.{name}").main)
    assert raised.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert "missing" in said
    assert said.count("\n") == 1
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_study_is_a_command() -> None:
    command = [sys.executable, "-m", "studies.chain", "--help"]
    environment = {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "PATH": ""}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert "--steps" in done.stdout
