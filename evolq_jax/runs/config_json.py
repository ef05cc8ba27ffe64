"""A config as JSON, as it stands in a run's directory."""

from typing import Any

from evolq_jax.config.experiment import Experiment
from evolq_jax.config.plugins import Plugin, check_loaded
from evolq_jax.json_text import parse_object
from evolq_jax.runs.typed_json import from_plain, to_json

__all__ = ["NETWORK", "from_json", "to_json"]

NETWORK = "network"  # in the file, beside the fields of the config: what was loaded for it

# Fields that runs of older versions have: what they asked for is in the run's scales.
DROPPED = (("search", "output_start"),)  # the link `own_output` does this now


def from_json(text: str, where: str) -> Experiment:
    """The inverse of `to_json`; fields that `text` lacks take their defaults.

    Args:
      text: JSON.
      where: what to call the text's source in errors.

    Raises:
      UserError: it is no JSON, or has an unknown key or a value of the wrong type or range; or it names a
        plug-in that is not loaded.
    """
    given = parse_object(text, where)
    check_loaded(_plugins(given), where)
    given.pop(NETWORK, None)
    for section, key in DROPPED:
        if isinstance(given.get(section), dict):
            given[section].pop(key, None)
    return from_plain(given, Experiment, where, "config")


def _plugins(given: dict[str, Any]) -> tuple[Plugin, ...]:
    """The plug-ins that are recorded. What is wrong with the record is found with the rest of the config."""
    try:
        return tuple(Plugin(**each) for each in given.get("plugins", ()))
    except TypeError:
        return ()
