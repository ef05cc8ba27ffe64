"""JSON of files that anybody may have written or edited."""

import json
from typing import Any

from evolq_jax.errors import UserError


def parse_json(text: str, where: str) -> Any:
    """What a text says.

    Raises:
      UserError: it is no JSON, is nested too deeply, or has a number of thousands of digits.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise UserError(f"{where} is damaged (nested too deeply)") from None
    except ValueError as error:
        reason = str(error).split(";")[0]  # what follows is advice to programmers, on numbers of many digits
        raise UserError(f"{where} is damaged or no JSON ({reason})") from error


def parse_object(text: str, where: str) -> dict[str, Any]:
    """What a text says, which is an object.

    Raises:
      UserError: as `parse_json`; or it is no object.
    """
    found = parse_json(text, where)
    if not isinstance(found, dict):
        raise UserError(f"{where} is damaged: a JSON object is expected, not {text.strip()[:40]}")
    return found
