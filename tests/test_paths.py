import json
import os
import sys
from pathlib import Path

import pytest
from PIL import Image

from evolq_jax.config.absolute import absolute
from evolq_jax.config.experiment import DataConfig, Experiment, LandscapeConfig, ModelConfig
from evolq_jax.data import load_images
from evolq_jax.data.cache import default_cache_dir
from evolq_jax.data.tfds_builder import default_data_dir
from evolq_jax.errors import UserError
from evolq_jax.paths import is_plain_word, open_regular, printable, user_path
from evolq_jax.runs.directory import RunDirectory, begin_run
from evolq_jax.runs.unfinished import difference
from evolq_jax.typing import Preprocessing

WRONG = {
    "~nosuchuser/x": "no home folder '~nosuchuser'; write the whole path",
    "x" * 300: "File name too long",
    "a\0b": "holds a character that no path can have",
    "\ud800": "holds a character that no path can have",
}


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No HOME, and a user of whom the system knows nothing, as in some containers."""
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("EVOLQ_CACHE", raising=False)
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    monkeypatch.setitem(sys.modules, "pwd", None)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("given", "message"), WRONG.items(), ids=["user", "long", "NUL", "surrogate"])
def test_paths_that_cannot_be(given: str, message: str) -> None:
    with pytest.raises(UserError, match=f"^it '.*{message}"):
        user_path(given, "it")
    config = Experiment(data=DataConfig(class_index=given))
    with pytest.raises(UserError, match=message):
        absolute(config)


@pytest.mark.parametrize("given", WRONG, ids=["user", "long", "NUL", "surrogate"])
@pytest.mark.parametrize("field", ["source", "class_index", "cache_dir"])
def test_images_at_paths_that_cannot_be(tmp_path: Path, given: str, field: str) -> None:
    Image.new("RGB", (20, 20)).save(tmp_path / "x.png")
    arguments = {"source": tmp_path, field: given}
    with pytest.raises(UserError, match=r"home folder|too long|no path can have"):
        load_images(preprocessing=Preprocessing(20, None), **arguments)  # pyright: ignore[reportArgumentType]


def test_home_is_expanded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert user_path("~/x/y", "it") == tmp_path / "x" / "y"
    monkeypatch.setenv("EVOLQ_CACHE", "~/cache")
    monkeypatch.setenv("TFDS_DATA_DIR", "~/sets")
    assert (default_cache_dir(), default_data_dir()) == (tmp_path / "cache", tmp_path / "sets")


def test_without_a_home_nothing_is_kept(homeless: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(UserError, match="no home folder '~'"):
        user_path("~/x", "it")
    assert default_cache_dir() is None
    assert "there is no home folder, so decoded images are not kept: set EVOLQ_CACHE" in caplog.text
    with pytest.raises(UserError, match=r"set data\.tfds_dir or TFDS_DATA_DIR"):
        default_data_dir()
    assert not list(homeless.iterdir())


def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    for path in (tmp_path / "pipe", tmp_path / "link", Path("/dev/zero"), tmp_path):
        with pytest.raises(OSError, match=r"it is a pipe, a device or a socket|Is a directory"):
            open_regular(path)
    (tmp_path / "file").write_bytes(b"content")
    with open_regular(tmp_path / "file") as file:
        assert file.read() == b"content"


def test_names_cannot_command_a_terminal() -> None:
    assert printable("a\x1b[31m\rü \u202e\ud800") == r"a\x1b[31m\rü \u202e\ud800"


@pytest.mark.parametrize("name", ["", "a/b", "..", "a\0", "a\x1b[2J", "x" * 300])
def test_names_that_are_no_plain_words(name: str) -> None:
    if name != "..":
        assert not is_plain_word(name)
        with pytest.raises(UserError, match="must be a plain word"):
            Experiment(name=name)


def test_a_run_keeps_absolute_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared = tmp_path / "packed"
    for path in (prepared, tmp_path / "run", tmp_path / "elsewhere"):
        path.mkdir()
    (prepared / "dataset_info.json").touch()
    config = Experiment(
        model=ModelConfig("vit_digits", "w.safetensors"),
        data=DataConfig("images/", "tfds:packed:images[:5]", "classes.txt", tfds_dir="~/sets", cache="auto"),
        landscape=LandscapeConfig(results=("a", "b")),
        start="other",
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    run = RunDirectory(tmp_path / "run")
    with begin_run(run, config):
        kept = json.loads(run.read("config.json"))
    assert kept["data"] | {"x": 0} == kept["data"] | {
        "calibration": f"{tmp_path}/images",
        "evaluation": f"tfds:{tmp_path}/packed:images[:5]",
        "class_index": f"{tmp_path}/classes.txt",
        "tfds_dir": f"{tmp_path}/sets",
        "cache": "auto",
        "x": 0,
    }
    assert (kept["model"]["weights"], kept["start"]) == (f"{tmp_path}/w.safetensors", f"{tmp_path}/other")
    assert kept["landscape"]["results"] == [f"{tmp_path}/a", f"{tmp_path}/b"]
    assert difference(run.config(), config) == ""
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert "model.weights was" in difference(run.config(), config)


def test_names_of_sets_stay() -> None:
    for data in (DataConfig(), DataConfig("tfds:imagenet2012:train[:10%]", "tfds:imagenet2012:validation")):
        for weights in (None, "hf-hub:owner/name"):
            config = Experiment(data=data, model=ModelConfig(weights=weights))
            assert absolute(config) == config
