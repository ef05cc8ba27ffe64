"""What messages tell a user to do about descents, finished runs and pictures: each is done."""

import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evolq_jax.cli import main as cli
from evolq_jax.runs.lock import locked
from evolq_jax.verbs.calibrate import run_calibrate
from evolq_jax.verbs.search.run import run_search
from tests.bad_input.conftest import Follow, Refuse
from tests.measured import without_timing
from tests.small_run import small_config, write_weights


@pytest.mark.parametrize(
    ("wrong", "pattern", "right"),
    [
        ("--baseline.optimizer lbfg", r"did you mean '(\w+)'", "--baseline.optimizer {1} {whole}"),
        (
            "--baseline.optimizer lbfgs --baseline.minibatch 10",
            r"set (baseline\.gradient) straight_through and (?:baseline\.minibatch) None",
            "--baseline.optimizer lbfgs --{1} straight_through --baseline.minibatch None",
        ),
        ("--baseline.optimizer rprop", r"takes no schedule .*choose (another)", "--baseline.optimizer adam"),
        ("--baseline.minibatch 15", r"multiple of search\.batch_size \((\d+)\)", "--baseline.minibatch {1}"),
        ("--baseline.budget 50", r"below the (\d+) of two .*raise baseline\.budget", "--baseline.budget {1}"),
        ("--baseline.budget 50", r"or lower (baseline\.minibatch)", "--baseline.budget 90 --{1} 10"),
        (
            "--search.fitness kl+local",
            r"'(local)' is known to the block-wise search only",
            "--search.fitness kl",
        ),
    ],
)
def test_advice_about_descents(
    refuse_late: Refuse, follow: Follow, wrong: str, pattern: str, right: str
) -> None:
    found = re.search(pattern, refuse_late("baseline", "config.py", *wrong.split()))
    assert found
    whole = "--baseline.gradient straight_through --baseline.minibatch None"
    follow("baseline", "config.py", *right.replace("{1}", found[1]).replace("{whole}", whole).split())


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A calibrated run, with its weights beside it."""
    path = tmp_path_factory.mktemp("runs") / "run"
    run_calibrate(small_config(write_weights(path.parent / "weights.safetensors")), path)
    return path


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished search, with its weights beside it."""
    path = tmp_path_factory.mktemp("finished") / "run"
    run_search(small_config(write_weights(path.parent / "weights.safetensors")), path)
    return path


@pytest.fixture
def run(calibrated: Path, here: Path) -> Path:
    """A calibrated run, to damage, and a picture beside it."""
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(here / "picture.png")
    shutil.copytree(calibrated, here / "run")
    return here / "run"


def command(message: str, pattern: str) -> list[str]:
    found = re.search(pattern, message)
    assert found, message
    return shlex.split(found[1])


def test_a_run_without_readable_scales_is_run_again(
    refuse_late: Refuse, follow: Follow, run: Path, calibrated: Path
) -> None:
    (run / "init_scales.safetensors").unlink()
    assert "run it again" in refuse_late("predict", "run", "picture.png")
    same = ("--model.weights", str(calibrated.parent / "weights.safetensors"))
    follow("calibrate", "config.py", "--run-dir", "run", *same)


def test_a_file_of_a_run_that_does_not_fit_is_brought_back(
    refuse_late: Refuse, follow: Follow, run: Path, calibrated: Path
) -> None:
    (run / "config.json").unlink()
    (run / "config.json").mkdir()
    assert "bring the run's own back" in refuse_late("predict", "run", "picture.png")
    (run / "config.json").rmdir()
    shutil.copy(calibrated / "config.json", run)
    follow("predict", "run", "picture.png")


def test_a_finished_run_is_left_and_another_directory_named(
    refuse_late: Refuse, follow: Follow, run: Path
) -> None:
    message = refuse_late("calibrate", "config.py", "--run-dir", "run")
    follow("calibrate", "config.py", *command(message, r"name another with (--run-dir)"), "other")


@pytest.mark.parametrize("right", ["none", "ten.txt"])
def test_a_class_list_of_another_network_is_replaced(
    refuse_late: Refuse, follow: Follow, run: Path, right: str
) -> None:
    (run.parent / "two.txt").write_text("one\ntwo\n")
    (run.parent / "ten.txt").write_text("".join(f"digit {number}\n" for number in range(10)))
    predict = ("predict", "run", "picture.png")
    message = refuse_late(*predict, "--data.class-index", "two.txt")
    assert message.endswith("or --data.class-index none")
    follow(*predict, *command(message, r"with (--data\.class-index), or"), right)


def test_pictures_are_named(refuse_late: Refuse, follow: Follow, run: Path) -> None:
    assert "name the pictures, or a folder of pictures" in refuse_late("predict", "run")
    follow("predict", "run", ".")
    words = command(refuse_late("predict", "config.py"), r": evolq (predict RUN_DIR IMAGE)")
    places = {"RUN_DIR": "run", "IMAGE": "picture.png"}
    follow(*(places.get(word, word) for word in words))


def test_a_run_keeps_its_config_but_for_its_data(refuse_late: Refuse, follow: Follow, run: Path) -> None:
    message = refuse_late("predict", "run", "picture.png", "--seed", "3")
    (option,) = command(message, r"; (--data) fields can")
    follow("predict", "run", "picture.png", f"{option}.num-evaluation", "3")


def test_files_beside_weights_are_brought_back(
    refuse_late: Refuse, follow: Follow, run: Path, calibrated: Path
) -> None:
    beside = calibrated.parent / "config.json"
    beside.write_text('{"mean": [0.3]}')
    assert "bring back the files beside its weights" in refuse_late("predict", "run", "picture.png")
    beside.unlink()
    follow("predict", "run", "picture.png")


@pytest.mark.parametrize(
    ("wrong", "pattern", "right"),
    [
        ("--landscape.origin final", r"set (landscape\.origin init)", "--{1}"),
    ],
)
def test_advice_about_landscapes_of_runs(
    refuse_late: Refuse,
    run: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    wrong: str,
    pattern: str,
    right: str,
) -> None:
    without_timing(monkeypatch, "landscape")
    scan = "landscape run --landscape.num-images 20 --landscape.batch-size 10 --landscape.no-plots --dry-run"
    found = re.search(pattern, refuse_late(*scan.split(), *wrong.split()))
    assert found
    cli.run([*scan.split(), *right.replace("{1}", found[1]).split()])
    assert "plan of" in capsys.readouterr().out


def test_a_directory_at_which_another_is_at_work(refuse_late: Refuse, follow: Follow, here: Path) -> None:
    (here / "mine").mkdir()
    with locked(here / "mine"):
        line = refuse_late("search", "config.py", "--run-dir", "mine")
    assert "wait until it has ended, or name another with --run-dir" in line
    follow("search", "config.py", "--run-dir", "mine")  # it has ended
    follow("search", "config.py", "--run-dir", "other")


def test_weights_that_have_changed_are_brought_back(
    refuse_late: Refuse, follow: Follow, finished: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(here / "picture.png")
    shutil.copytree(finished, here / "run")
    weights = finished.parent / "weights.safetensors"
    kept = weights.read_bytes()
    changed = np.ones((64, 10), np.float32)
    write_weights(weights, changes={"head/weight": changed})
    line = refuse_late("predict", "run", "picture.png")
    assert "the weights of run 'run' have changed since: bring them back, or search again" in line
    follow("search", "config.py", "--model.weights", str(weights), "--run-dir", "again")
    weights.write_bytes(kept)
    follow("predict", "run", "picture.png")
