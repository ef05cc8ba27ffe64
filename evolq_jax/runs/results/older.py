"""Brings results of older versions into today's form. They do not say what they are."""

from pathlib import Path
from typing import Any

from evolq_jax.errors import UserError
from evolq_jax.runs.directory import COMPARISON

SETTING = (
    "name",
    "seed",
    "model",
    "scheme",
    "weight_bits",
    "edge_weight_bits",
    "activation_bits",
    "added_parameters",
    "chain",
    "fitness",
)
PROVENANCE = ("fingerprints", "device", "mesh", "processes", "versions")
SCANS = ("line", "plane", "layers")  # an older landscape's `kind`
MARKS = {"moves": "search", "optimizer": "baseline"}  # what only one verb's result had


def in_todays_form(content: dict[str, Any], path: Path) -> dict[str, Any]:
    """The content of a file, with `kind`, `setting` and `provenance` as today.

    Raises:
      UserError: the content does not show which verb wrote it.
    """
    if "kind" in content and content["kind"] not in SCANS:
        return content
    kind = _kind_of(content, path.name)
    if kind is None:
        raise UserError(
            f"'{path}' is of an older version and does not say which verb wrote it: run that verb again"
        )
    if kind == "comparison":
        return {**content, "kind": kind}
    own = {key: value for key, value in content.items() if key not in (*SETTING, *PROVENANCE)}
    setting = {key: content[key] for key in SETTING if key in content}
    provenance = {key: content[key] for key in PROVENANCE if key in content}
    return {**own, "kind": kind, "setting": setting, "provenance": {"fingerprints": {}} | provenance}


def _kind_of(content: dict[str, Any], name: str) -> str | None:
    if content.get("kind") in SCANS:
        return "landscape"
    if name == COMPARISON:
        return "comparison"
    return next((kind for mark, kind in MARKS.items() if mark in content), None)
