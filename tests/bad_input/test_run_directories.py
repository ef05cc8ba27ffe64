import json
import sys
from pathlib import Path
from typing import NoReturn

import pytest

from evolq_jax.cli import main as cli
from evolq_jax.config.experiment import CalibrationConfig, Experiment
from evolq_jax.pipeline import images
from evolq_jax.runs.config_json import to_json
from tests.bad_input.conftest import Refuse, listing


@pytest.mark.parametrize("verb", ["search", "calibrate"])
@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("file/run", "cannot write 'file/run': Not a directory; name another with --run-dir"),
        ("file", "run directory 'file' is a file; name another with --run-dir"),
        ("full", "run directory 'full' is not empty; name another with --run-dir"),
    ],
)
def test_run_directories_that_cannot_be_written(
    refuse: Refuse, here: Path, verb: str, path: str, message: str
) -> None:
    (here / "file").write_text("")
    (here / "full").mkdir()
    (here / "full" / "precious.txt").write_text("")
    assert refuse(verb, "config.py", "--run-dir", path) == message


def test_a_runs_folder_that_cannot_be_made(refuse: Refuse, here: Path) -> None:
    (here / "runs").write_text("")
    assert refuse("search", "config.py").startswith("cannot write 'runs/small-001': Not a directory")


@pytest.fixture
def calibrated(here: Path) -> Path:
    """A run directory without scales."""
    path = here / "run"
    path.mkdir()
    config = Experiment(calibration=CalibrationConfig(chain=("ranges",)))
    (path / "config.json").write_text(to_json(config))
    return path


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("sead", 1, "run/config.json: not a config: unknown key 'sead'; did you mean 'seed'?"),
        ("seed", "one", "run/config.json: not a config: invalid value for type, expected int @ $.seed"),
        ("quant", {"weight_bits": 9}, "quant.weight_bits must be from 2 to 8, not 9"),
    ],
)
def test_a_run_s_config(refuse: Refuse, calibrated: Path, key: str, value: object, message: str) -> None:
    path = calibrated / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    assert message in refuse("evaluate", "run")


def test_a_run_without_qparams(refuse: Refuse, calibrated: Path) -> None:
    model = {"name": "vit_digits", "weights": "weights.safetensors"}
    path = calibrated / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model": model}))
    assert refuse("evaluate", "run").startswith("no readable arrays in 'run/init_scales.safetensors'")


def test_a_run_keeps_its_config(refuse: Refuse, calibrated: Path) -> None:
    line = "a run keeps its config, so '{}' cannot be set on one; --data fields can"
    assert refuse("evaluate", "run", "--seed", "3") == line.format("--seed")
    assert refuse("evaluate", "run", "--preset", "faithful") == line.format("--preset")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (
            ("run", "--resume", "--seed", "3"),
            "a run keeps its config, so '--seed' cannot be set with --resume",
        ),
        (
            ("run", "--resume", "--run-dir", "b"),
            "a run keeps its config, so '--run-dir' cannot be set with --resume",
        ),
        (
            ("config.py", "--resume"),
            "--resume wants a run directory, not 'config.py': write evolq search RUN_DIR --resume",
        ),
        (
            ("nowhere", "--resume"),
            "--resume wants a run directory, not 'nowhere': write evolq search RUN_DIR --resume",
        ),
        (("run",), "'run' is a run directory: evolq search run --resume goes on with it"),
        (
            ("config.py", "--run-dir", "run"),
            "'run' holds an unfinished search of another config (name was experiment and is small): give it "
            "the same to continue, or name another with --run-dir",
        ),
    ],
)
def test_resuming_wrongly(refuse: Refuse, calibrated: Path, args: tuple[str, ...], message: str) -> None:
    assert refuse("search", *args) == message


@pytest.mark.parametrize(("field", "value"), [("keep", "0"), ("every-seconds", "-1")])
def test_checkpoints_that_mean_nothing(refuse: Refuse, here: Path, field: str, value: str) -> None:
    assert f"checkpoint.{field.replace('-', '_')} must" in refuse(
        "search", "config.py", f"--checkpoint.{field}", value
    )


def test_a_folder_that_is_no_run(refuse: Refuse, here: Path) -> None:
    (here / "empty").mkdir()
    assert refuse("evaluate", "empty") == "'empty' is no run directory: it holds no config.json"


def test_interrupting_says_so(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*args: object, **kwargs: object) -> NoReturn:
        raise KeyboardInterrupt

    monkeypatch.setattr(images, "load_images", interrupt)
    monkeypatch.setattr(sys, "argv", ["evolq", "search", "config.py"])
    before = listing(here)
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 130
    assert capsys.readouterr().err == "evolq: interrupted\n"
    assert listing(here) == before
