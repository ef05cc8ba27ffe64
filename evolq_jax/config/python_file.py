"""Python files of a user, run for what they define."""

import runpy
import traceback
from pathlib import Path
from typing import Any

from evolq_jax.errors import UserError


def run_file(path: Path, called: str, name: str | None = None) -> dict[str, Any]:
    """What a Python file defines, by name.

    Args:
      path: the file.
      called: what to call it in errors.
      name: of the module that the file is run as.

    Raises:
      UserError: the file raises an exception, or exits. The message names the file's last line in it.
    """
    try:
        return runpy.run_path(str(path), run_name=name)
    except UserError as error:
        raise UserError(f"{called}: {error}") from error
    except (Exception, SystemExit) as error:
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if frame.filename == str(path)]
        where = f", line {lines[-1]}" if lines else ""
        raise UserError(f"{called}{where}: {type(error).__name__}: {error}") from error
