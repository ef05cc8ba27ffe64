"""What a user gets wrong ends in one line and status 2, before anything is computed, and leaves nothing."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
from PIL import Image

from evolq_jax.cli import main as cli
from evolq_jax.cli.progress import LineWatcher
from evolq_jax.errors import UserError
from evolq_jax.models.registry import REGISTRY, VIT, Entry
from evolq_jax.models.vit import ViTConfig
from evolq_jax.pipeline import calibrate as calibrated
from evolq_jax.pipeline import images
from evolq_jax.typing import Preprocessing
from tests.small_run import write_weights

Refuse = Callable[..., str]
Follow = Callable[..., None]
RGB = ViTConfig(image_size=8, patch_size=4, width=8, depth=1, num_heads=1, mlp_width=8, num_classes=3)


def listing(folder: Path) -> list[str]:
    return sorted(str(path) for path in folder.rglob("*"))


@pytest.fixture
def refuse_late(here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Refuse:
    """Runs a command that must fail in the proper way, and gives its line without the prefix.

    Notes about the data may come before it.
    """

    def refuse(*args: str) -> str:
        monkeypatch.setattr(sys, "argv", ["evolq", *args])
        monkeypatch.setattr(cli, "make_watcher", lambda: LineWatcher(sys.stderr, every=1e9))
        before = listing(here)
        with pytest.raises(SystemExit) as caught:
            cli.main()
        shown = capsys.readouterr()
        assert caught.value.code == 2
        assert shown.out == ""
        *notes, error = shown.err.splitlines(keepends=True)
        assert error.startswith("evolq: error: ")
        assert error.endswith("\n")
        assert all(note.startswith("evolq: note: ") for note in notes)
        assert listing(here) == before
        return error.removeprefix("evolq: error: ").strip()

    return refuse


@pytest.fixture
def refuse(refuse_late: Refuse, monkeypatch: pytest.MonkeyPatch) -> Refuse:
    """The same, of what must be found before an image is decoded or a network run."""

    def too_late(*args: object, **kwargs: object) -> NoReturn:
        pytest.fail("the mistake was not found in time")

    monkeypatch.setattr(images, "load_images", too_late)
    monkeypatch.setattr(calibrated, "calibrate", too_late)
    monkeypatch.setattr("evolq_jax.pipeline.speed.compute_logits", too_late)
    return refuse_late


@pytest.fixture
def follow(
    refuse_late: Refuse, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Follow:
    """Runs a command that must get past its files: its images are decoded, and calibrating would begin."""

    def reached(*args: object, **options: object) -> None:
        raise UserError("reached")

    def run(*args: str) -> None:
        with monkeypatch.context() as patched:
            patched.setattr("evolq_jax.pipeline.calibrate.calibrate", reached)
            patched.setattr("evolq_jax.verbs.predict.decode_pictures", reached)
            patched.setattr("evolq_jax.verbs.train.train", reached)
            patched.setattr(sys, "argv", ["evolq", *args])
            with pytest.raises(SystemExit):
                cli.main()
        assert capsys.readouterr().err.splitlines()[-1] == "evolq: error: reached"

    return run


def npz(path: Path, count: int, channels: int = 1, labels: list[int] | None = None) -> str:
    pixels = np.zeros((count, 8, 8, channels), np.uint8)
    if labels is None:
        np.savez(path, image=pixels)
    else:
        np.savez(path, image=pixels, label=np.array(labels))
    return path.name


def save_images(folder: Path, count: int) -> str:
    folder.mkdir(parents=True)
    for i in range(count):
        Image.fromarray(np.full((8, 8, 3), i, np.uint8)).save(folder / f"{i}.png")
    return str(folder)


@pytest.fixture
def rgb(here: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """Arguments for a network that takes images from folders."""
    monkeypatch.setitem(REGISTRY, "vit_rgb", Entry("vit_rgb", VIT, RGB, Preprocessing(8, None)))
    write_weights(here / "rgb.safetensors", "vit_rgb")
    return ("search", "config.py", "--model.name", "vit_rgb", "--model.weights", "rgb.safetensors")
