"""Class lists in JSON, or in the Python literals that some pages call JSON."""

import ast
import json
from typing import Any

from evolq_jax.errors import UserError


def parse_json(text: str, where: str) -> list[tuple[int, tuple[str, ...]]]:
    """The classes of a text: each one's index, and what it is called.

    It may be a list of names, an object of names by index, or one of indices by name. A name may be a list of
    names. An object with `id2label` or `label2id` stands for what is under that key.

    Raises:
        UserError: it is no JSON, or says something else.
    """
    given = _parsed(text, where)
    if isinstance(given, dict):
        given = given.get("id2label", given.get("label2id", given))
    entries = list(enumerate(given)) if isinstance(given, list) else _by_index(given)
    if not entries:
        raise UserError(f"{where} is neither a list of names, nor names by index, nor indices by name")
    found = [(index, tuple(each) if isinstance(each, list | tuple) else (each,)) for index, each in entries]
    if not all(names and all(isinstance(name, str) for name in names) for _, names in found):
        raise UserError(f"{where}: a class must be a name or a list of names")
    return found


def _parsed(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        try:
            return ast.literal_eval(text.strip())
        except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
            raise UserError(f"{where} is no JSON: {error}") from error


def _by_index(given: Any) -> list[tuple[int, Any]]:
    """Pairs of index and names; none, if it is no such object."""
    if not isinstance(given, dict):
        return []
    if all(isinstance(value, int) and not isinstance(value, bool) for value in given.values()):
        return [(value, str(name)) for name, value in given.items()]
    keys = [str(key) for key in given]
    if all(key.isascii() and key.isdigit() and len(key) < 10 for key in keys):
        return [(int(key), value) for key, value in zip(keys, given.values(), strict=True)]
    return []
