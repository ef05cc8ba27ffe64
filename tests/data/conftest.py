"""A small image folder, and a cache that is never the user's own."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SaveImage = Callable[..., None]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # pyright: ignore[reportUnusedFunction]
    monkeypatch.setenv("EVOLQ_CACHE", str(tmp_path / "default_cache"))


@pytest.fixture
def save_image() -> SaveImage:
    """`save_image(path, seed, width, height)` writes noise; the ending chooses the format."""

    def save(path: Path, seed: int, width: int = 20, height: int = 20) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)

    return save


@pytest.fixture
def folder(tmp_path: Path, save_image: SaveImage) -> Path:
    """Four images of classes a and c; written in an order that is not the sorted one."""
    root = tmp_path / "images"
    for seed, name in enumerate(["c/2.png", "a/9.JPEG", "c/10.png", "a/1.png"]):
        save_image(root / name, seed)
    return root


@pytest.fixture
def class_index(tmp_path: Path) -> Path:
    """Three classes; b has no folder."""
    path = tmp_path / "classes.txt"
    path.write_text("a first class\nb\nc\n")
    return path
