"""Files that are there whole, or not at all."""

import os
import tempfile
from contextlib import suppress
from pathlib import Path

from evolq_jax.errors import UserError


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file in one step, and its folder where there is none.

    Raises:
      UserError: it cannot be written.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(content)
        partial.replace(path)
    except OSError as error:
        raise UserError(f"cannot write '{path}': {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            partial.unlink()


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
