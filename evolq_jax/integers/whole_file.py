"""Files that are there whole, or not at all."""

import tempfile
from pathlib import Path

from evolq_jax.errors import UserError
from evolq_jax.paths import atomic


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file in one step, and its folder where there is none.

    Raises:
      UserError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic(path) as file:
            file.write(content)
    except OSError as error:
        raise UserError(f"cannot write '{path}': {error.strerror or error}") from error


def make_folder(folder: Path) -> None:
    """Makes a folder where there is none, and tries whether files can be written into it.

    Raises:
      UserError: they cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(
            f"cannot write into '{folder}': {error.strerror or error}; name another folder"
        ) from error
