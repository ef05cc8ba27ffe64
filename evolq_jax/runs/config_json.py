"""A config as JSON, as it stands in a run's directory."""

import json

from evolq_jax.config.experiment import Experiment
from evolq_jax.errors import UserError
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
      UserError: it is no JSON, or has an unknown key or a value of the wrong type or range.
    """
    try:
        given = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{where}: not JSON: {error}") from error
    if not isinstance(given, dict):
        raise UserError(f"{where}: not a config but {text.strip()[:40]}")
    given.pop(NETWORK, None)
    for section, key in DROPPED:
        if isinstance(given.get(section), dict):
            given[section].pop(key, None)
    return from_plain(given, Experiment, where, "config")
