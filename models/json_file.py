"""JSON files that others wrote, read without trust."""

import json
from pathlib import Path
from typing import Any

from evolq_jax.errors import UserError

MAX_BYTES = 64 * 2**20  # class names for 21,843 classes take 2 MB, the index of a huge network 10


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        UserError: the file cannot be read, is too large, nested too deeply, or no JSON object; or a key
            stands twice in an object, with two values.
    """
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise UserError(f"{path}: {size} bytes are too many for a file of settings (at most {MAX_BYTES})")
        settings = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=_without_contradiction)
    except RecursionError:
        raise UserError(f"{path}: not readable as JSON (nested too deeply)") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not readable as JSON ({_short(error)})") from None
    if not isinstance(settings, dict):
        raise UserError(f"{path}: not a JSON object of settings")
    return settings


def shown(value: Any) -> str:
    """A value of a file for a message, cut where it is long."""
    text = " ".join(json.dumps(value, default=str).split())
    return text if len(text) <= 60 else f"{text[:57]}..."


def _without_contradiction(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found and found[key] != value:
            raise ValueError(f"'{key[:60]}' stands twice, with two values")
        found[key] = value
    return found


def _short(error: Exception) -> str:
    return str(error).split(";")[0]  # what follows is advice to programmers, on integers of many digits
