"""The benchmarks' command line: a report, and one line for what is wrong."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import peak, run
from benchmarks.command import main
from tests.benchmarks.test_measures import tiny_subject

ROOT = Path(__file__).resolve().parents[2]


def test_report_is_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("benchmarks.command.load", lambda options: tiny_subject(2))
    monkeypatch.setattr(sys, "argv", ["peak.py", "--quick", "--json", str(tmp_path / "report.json")])
    main("peak", {"square": lambda subject, options: [{"GFLOP/s": peak.peak_flops((64,), 1) / 1e9}]})
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["square"][0]["GFLOP/s"] > 0
    assert {"device", "cores", "jax"} <= set(report["setting"])
    assert "square" in capsys.readouterr().out


def test_a_wrong_folder_is_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["peak.py", "--calibration", str(tmp_path / "missing")])
    with pytest.raises(SystemExit) as raised:
        main("peak", run.MEASURES)
    assert raised.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert "missing" in said
    assert said.count("\n") == 1


def test_help_of_a_script() -> None:
    command = [sys.executable, "benchmarks/run.py", "--help"]
    environment = {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "PATH": ""}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert "--quick" in done.stdout
