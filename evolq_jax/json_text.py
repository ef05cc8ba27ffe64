"""JSON of files that anybody may have written or edited."""

import json
from pathlib import Path
from typing import Any

from evolq_jax.errors import UserError
from evolq_jax.paths import read_small


def parse_json(text: str, where: str) -> Any:
    """What a text says.

    Raises:
      UserError: it is no JSON, is nested too deeply, or has a number of thousands of digits; or a key stands
        twice in an object, with two values.
    """
    try:
        return json.loads(text, object_pairs_hook=_without_contradiction)
    except RecursionError:
        raise UserError(f"{where}: not readable as JSON (nested too deeply)") from None
    except ValueError as error:
        reason = str(error).split(";")[0]  # what follows is advice to programmers, on numbers of many digits
        raise UserError(f"{where}: not readable as JSON ({reason})") from None


def parse_object(text: str, where: str) -> dict[str, Any]:
    """What a text says, which is an object.

    Raises:
      UserError: as `parse_json`; or it is no object.
    """
    found = parse_json(text, where)
    if not isinstance(found, dict):
        raise UserError(f"{where}: not a JSON object but {text.strip()[:40]}")
    return found


def read_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
      UserError: as `parse_object`; or the file cannot be read or is too large.
    """
    content = read_small(path, "settings")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not readable as JSON ({error})") from error
    return parse_object(text, str(path))


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
