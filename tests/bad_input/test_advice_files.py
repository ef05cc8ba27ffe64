"""What messages tell a user to do about files: each is done, and the command then goes through."""

import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from evolq_jax.cli import main as cli
from evolq_jax.config import plugins
from evolq_jax.config.experiment import CalibrationConfig
from evolq_jax.objective.terms import TERMS
from evolq_jax.runs.config_json import to_json
from tests.bad_input.conftest import Follow, Refuse, npz, save_images
from tests.small_run import small_config, write_weights

EVALUATION = ("--data.evaluation", "val", "--data.num-evaluation", "none")


def group(pattern: str, message: str) -> str:
    found = re.search(pattern, message)
    assert found, message
    return found.group(1)


@pytest.fixture
def val(here: Path, rgb: tuple[str, ...]) -> tuple[str, ...]:
    """A command on a folder of one class."""
    save_images(here / "val" / "cat", 30)
    (here / "classes.txt").write_text("cat\ndog\nhorse\n")
    return ("calibrate", *rgb[1:], "--data.calibration", "val", *EVALUATION)


LISTED = ("--data.class-index", "classes.txt")


def test_an_unreadable_image_is_removed_or_skipped(
    refuse_late: Refuse, follow: Follow, here: Path, val: tuple[str, ...]
) -> None:
    save_images(here / "val" / "dog", 1)
    (here / "val" / "dog" / "0.png").write_bytes(b"no image")
    command = ("evaluate", *val[1:], "--data.calibration", "val/cat")
    message = refuse_late(*command)
    follow(*command, *group(r"or set (--data\.on-corrupt skip)", message).split())
    Path(group(r"cannot read image (\S+\.png)", message)).unlink()
    follow(*command)


@pytest.mark.parametrize("lines", ["background\ncat\ndog\nhorse\n", "cat\ndog\n"])
def test_a_class_list_of_another_length_is_corrected(
    refuse_late: Refuse, follow: Follow, here: Path, val: tuple[str, ...], lines: str
) -> None:
    (here / "classes.txt").write_text(lines)
    command = ("evaluate", *val[1:], *LISTED)
    assert "remove lines that are no class of it, or add those that lack" in refuse_late(*command)
    (here / "classes.txt").write_text("cat\ndog\nhorse\n")
    follow(*command)


def test_an_image_outside_class_folders_is_moved_or_read_without_labels(
    refuse_late: Refuse, follow: Follow, here: Path, val: tuple[str, ...]
) -> None:
    shutil.copy(here / "val" / "cat" / "0.png", here / "val" / "loose.png")
    command = ("evaluate", *val[1:])
    message = refuse_late(*command, *LISTED)
    assert (
        "move it into <class>/ or go without class_index (--data.class-index None; of evolq pack" in message
    )
    follow(*command, "--data.class-index", "None")
    (here / "val" / "loose.png").rename(here / "val" / "cat" / "loose.png")
    follow(*command, *LISTED)


@pytest.mark.parametrize("place", ["elsewhere", "None"])
def test_a_cache_that_cannot_be_written(
    refuse_late: Refuse, follow: Follow, here: Path, val: tuple[str, ...], place: str
) -> None:
    (here / "file").touch()
    message = refuse_late(*val, "--data.cache", "file/cache")
    assert "--data.cache None" in message
    follow(*val, group(r"or (--data\.cache) to a writable folder", message), place)


def test_a_cache_of_the_environment_that_cannot_be_written(
    refuse_late: Refuse, follow: Follow, here: Path, val: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "file").touch()
    cached = (here / "config.py").read_text() + (
        "from dataclasses import replace\nconfig = replace(config, data=replace(config.data, cache='auto'))\n"
    )
    (here / "config.py").write_text(cached)
    monkeypatch.setenv("EVOLQ_CACHE", str(here / "file" / "cache"))
    message = refuse_late(*val)
    monkeypatch.setenv(group(r"set (EVOLQ_CACHE)", message), str(here / "cache"))
    follow(*val)


def test_arrays_are_saved_as_the_message_says(refuse_late: Refuse, follow: Follow, here: Path) -> None:
    images = np.zeros((30, 8, 8, 1), np.uint8)
    np.save(here / "one.npy", images)
    (here / "one.npy").rename(here / "one.npz")
    command = ("calibrate", "config.py", "--data.calibration", "one.npz")
    call = group(r"save it with (numpy\.savez\(path, image=\.\.\.\))", refuse_late(*command))
    exec(call.replace("...", "images"), {"numpy": np, "path": here / "one.npz", "images": images})
    follow(*command)


def test_labels_that_are_no_indices_are_left_out(refuse_late: Refuse, follow: Follow, here: Path) -> None:
    command = ("evaluate", "config.py", "--data.evaluation", "val.npz", "--data.num-evaluation", "None")
    npz(here / "val.npz", 30, labels=[-1] * 30)
    assert "leave it out if there are no labels" in refuse_late(*command)
    npz(here / "val.npz", 30)
    follow(*command)


def test_a_number_of_images_that_is_there(refuse_late: Refuse, follow: Follow) -> None:
    batch = ("calibrate", "config.py", "--data.num-calibration", "5")
    key, other = re.findall(r"(calibration\.batch_size|data\.num_calibration)", refuse_late(*batch))
    follow(*batch, f"--{key}", "5")
    follow(*batch[:2], f"--{other}", "20")


def test_weights_of_another_network_are_named(refuse_late: Refuse, follow: Follow) -> None:
    message = refuse_late("calibrate", "config.py", "--model.name", "vit_tiny_patch16_224")
    name = group(r"it fits (\w+): give that name", message)
    follow("calibrate", "config.py", "--model.name", name)


def test_a_network_without_weights_is_given_them(
    refuse_late: Refuse, follow: Follow, val: tuple[str, ...]
) -> None:
    command = [each for each in val if each not in ("--model.weights", "rgb.safetensors")]
    message = refuse_late(*command, "--model.weights", "None")
    follow(*command, group(r"with (--model\.weights) FILE", message), "rgb.safetensors")


def test_a_folder_of_several_weight_files_is_named_by_one(
    refuse_late: Refuse, follow: Follow, here: Path
) -> None:
    for name in ("a", "b"):
        write_weights(here / "both" / f"{name}.safetensors")
    message = refuse_late("calibrate", "config.py", "--model.weights", "both")
    name = group(r"several weight files \((\S+), ", message)
    follow("calibrate", "config.py", "--model.weights", f"both/{name}")


def test_a_damaged_file_is_copied_again(
    refuse_late: Refuse, follow: Follow, here: Path, weights: Path
) -> None:
    (here / "cut.safetensors").write_bytes(weights.read_bytes()[:50_000])
    command = ("calibrate", "config.py", "--model.weights", "cut.safetensors")
    assert "download or copy it again" in refuse_late(*command)
    shutil.copy(weights, here / "cut.safetensors")
    follow(*command)


def test_a_shard_that_is_missing_is_put_beside_the_others(
    refuse_late: Refuse, follow: Follow, here: Path, weights: Path
) -> None:
    (here / "parts").mkdir()
    arrays = load_file(weights)
    listed = ", ".join(f'"{key}": "model-00001-of-00001.safetensors"' for key in arrays)
    (here / "parts" / "model.safetensors.index.json").write_text('{"weight_map": {' + listed + "}}")
    command = ("calibrate", "config.py", "--model.weights", "parts")
    name = group(r"the shard '(.*)' is missing: download it into the same folder", refuse_late(*command))
    save_file(arrays, here / "parts" / name)
    follow(*command)


def test_a_file_beside_the_weights_is_moved_away_or_its_name_given(
    refuse_late: Refuse, follow: Follow, here: Path
) -> None:
    (here / "config.json").write_text('{"architecture": "resnet18"}')
    message = refuse_late("calibrate", "config.py")
    (here / group(r"^(\S+): ", message)).rename(here / "away.json")
    assert "move the file away if it belongs to other weights" in message
    follow("calibrate", "config.py")


def test_a_config_file_of_nearly_that_name(refuse_late: Refuse, follow: Follow) -> None:
    follow("calibrate", group(r"did you mean '(.*)'", refuse_late("calibrate", "confg.py")))


def test_a_field_before_the_config_is_put_after_it(refuse_late: Refuse, follow: Follow) -> None:
    message = refuse_late("calibrate", "--seed", "1", "config.py")
    command = group(r"write evolq (calibrate CONFIG --seed) \.\.\.", message).replace("CONFIG", "config.py")
    follow(*command.split(), "1")


def test_a_verb_without_a_config_names_one_that_is_there(refuse_late: Refuse) -> None:
    root = Path(cli.__file__).parents[2]
    for verb in ("search", "train", "compare", "baseline", "landscape", "evaluate"):
        assert (root / group(r"as in: evolq \w+ (\S+)$", refuse_late(verb))).is_file()


@pytest.fixture
def run(here: Path, weights: Path) -> Path:
    """A run that has begun, in a folder whose name has a blank."""
    path = here / "my run"
    path.mkdir()
    config = small_config(weights, calibration=CalibrationConfig(chain=("ranges",), batch_size=10))
    (path / "config.json").write_text(to_json(config))
    return path


def test_a_run_directory_is_gone_on_with(refuse_late: Refuse, follow: Follow, run: Path) -> None:
    command = group(r": evolq (.*) goes on with it", refuse_late("search", run.name))
    follow(*shlex.split(command))


def test_resuming_names_a_run_directory(refuse_late: Refuse, follow: Follow, run: Path) -> None:
    message = refuse_late("search", "config.py", "--resume")
    command = group(r"write evolq (search RUN_DIR --resume)", message)
    follow(*(run.name if word == "RUN_DIR" else word for word in command.split()))


@pytest.mark.parametrize("path", ["file/run", "file", "full", "my run"])
def test_another_run_directory_is_named(
    refuse_late: Refuse, follow: Follow, here: Path, run: Path, path: str
) -> None:
    (here / "file").touch()
    (here / "full").mkdir()
    (here / "full" / "precious.txt").touch()
    message = refuse_late("search", "config.py", "--run-dir", path)
    follow("search", "config.py", group(r"name another with (--run-dir)", message), "other")


def test_a_prepared_data_set_is_named_as_one(
    refuse_late: Refuse, follow: Follow, val: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    cli.run(["pack", "val", "--out", "my set"])
    command = ("calibrate", *val[1:], "--data.calibration")
    follow(*command, *shlex.split(group(r"source\W+('tfds:[^']+')", capsys.readouterr().out)))
    words = shlex.split(group(r": write (.*)$", refuse_late(*command, "my set")))
    follow(*command, *words)


def test_a_folder_with_an_image_without_a_class_is_packed_without_labels(
    refuse_late: Refuse, here: Path, val: tuple[str, ...]
) -> None:
    shutil.copy(here / "val" / "cat" / "0.png", here / "val" / "loose.png")
    pack = ("pack", "val", "--out", "packed")
    assert "of evolq pack: no --class-index" in refuse_late(*pack, "--class-index", "classes.txt")
    cli.run([*pack])
    assert any((here / "packed").iterdir())


@pytest.mark.parametrize("out", ["val/packed", "full"])
def test_a_packed_set_gets_another_folder(
    refuse_late: Refuse, here: Path, val: tuple[str, ...], out: str
) -> None:
    (here / "full").mkdir()
    (here / "full" / "precious.txt").touch()
    message = refuse_late("pack", "val", "--out", out)
    assert re.search(r"give the data set (a folder elsewhere|another folder)", message)
    cli.run(["pack", "val", "--out", "other"])
    assert any((here / "other").iterdir())


TERM = "def mine(student, teacher):\n    return ((student - teacher) ** 2).mean()\n"


@pytest.fixture
def plugin(here: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A plug-in that this process has loaded, in a file whose name has a blank."""
    monkeypatch.setattr(plugins, "_loaded", {})
    (here / "my plug.py").write_text(TERM)
    plugins.load_plugin(here / "my plug.py")
    yield here / "my plug.py"
    TERMS.pop("mine", None)


def test_a_plugin_that_a_run_was_made_with_is_named_again(
    refuse_late: Refuse, follow: Follow, run: Path, plugin: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (run / "config.json").write_text(to_json(small_config(run.parent / "weights.safetensors")))
    monkeypatch.setattr(plugins, "_loaded", {})
    TERMS.pop("mine")  # as in another process
    message = refuse_late("search", run.name, "--resume")
    follow("search", run.name, "--resume", *shlex.split(group(r"with (--plugin .*)$", message)))


def test_a_thing_of_a_plugin_whose_name_is_taken_is_renamed(
    refuse_late: Refuse, follow: Follow, here: Path, plugin: Path
) -> None:
    (here / "more.py").write_text(TERM + "# another\n")
    command = ("calibrate", "config.py", "--plugin", "more.py")
    name = group(r"fitness term '(\w+)' already; rename this one", refuse_late(*command))
    try:
        (here / "more.py").write_text(TERM.replace(name, "other"))
        follow(*command)
    finally:
        TERMS.pop("other", None)


TRAIN = """\
from evolq_jax.config.experiment import TrainConfig, TrainExperiment
config = TrainExperiment(
    model="vit_digits", train_data="digits:train", test_data="digits:test", out="out.safetensors",
    train=TrainConfig(epochs=10),
)
"""


@pytest.mark.parametrize(
    ("wrong", "pattern", "right"),
    [
        ("--train-data digits:trian", r"did you mean '(.*)'", "--train-data {1}"),
        ("--out w.npz", r"written as (\.safetensors), so give it that ending", "--out w{1}"),
        ("--train.epochs 3", r"(train\.warmup) \(5 epochs\) must be shorter", "--train.epochs 3 --{1} 1"),
        ("--model resnet18", r"choose a (ViT)", "--model vit_digits"),
        ("--train.epoch 10", r"did you mean '(.*)'", "{1} 10"),
    ],
)
def test_advice_about_training(
    refuse_late: Refuse, follow: Follow, here: Path, wrong: str, pattern: str, right: str
) -> None:
    (here / "train.py").write_text(TRAIN)
    found = group(pattern, refuse_late("train", "train.py", *wrong.split()))
    follow("train", "train.py", *right.replace("{1}", found).split())
