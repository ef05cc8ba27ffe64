"""Single pictures that a user names, as the pixels that a network takes."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from evolq_jax.data.folder import EXTENSIONS
from evolq_jax.data.image_file import decode_image
from evolq_jax.data.source import Unreadable
from evolq_jax.errors import UserError
from evolq_jax.paths import open_regular, user_path
from evolq_jax.typing import Preprocessing, Progress, no_progress


def list_pictures(given: Sequence[str | Path]) -> tuple[Path, ...]:
    """The files that are named, and those in folders that are named, sorted by name.

    Raises:
        UserError: nothing is named, a path does not exist, or a folder holds no picture.
    """
    if not given:
        raise UserError("name the pictures, or a folder of pictures")
    found: list[Path] = []
    for path in (user_path(each, "picture") for each in given):
        if not path.exists():
            raise UserError(f"no picture at '{path}'")
        inside = sorted(file for file in path.rglob("*") if file.suffix.lower() in EXTENSIONS)
        if path.is_dir() and not inside:
            raise UserError(f"no pictures in '{path}' (endings: {' '.join(EXTENSIONS)})")
        found += inside if path.is_dir() else [path]
    return tuple(found)


def decode_pictures(
    files: Sequence[Path], preprocessing: Preprocessing, progress: Progress = no_progress
) -> np.ndarray:
    """Pictures as uint8 [B, size, size, K] with the network's number of channels, K = 3 or 1.

    Raises:
        UserError: one cannot be read, or is smaller than the crop.
    """
    found: list[np.ndarray] = []
    for file in files:
        found.append(_decode_picture(file, preprocessing))
        progress(len(found), len(files))
    return np.stack(found)


def _decode_picture(path: Path, preprocessing: Preprocessing) -> np.ndarray:
    """One picture, uint8 [size, size, K]."""
    try:
        with open_regular(path) as file:
            return decode_image(file, path, preprocessing, "L" if len(preprocessing.mean) == 1 else "RGB")
    except OSError as error:
        raise UserError(f"cannot read picture {path}: {error.strerror or error}") from error
    except Unreadable as error:
        raise UserError(f"cannot read picture {error}") from error
