"""What a run's config stood for when it was loaded: the network's architecture, and how images were prepared.

Both come from the registry, the weights and the files beside them, and may change there. A run's config.json
has them beside the config.
"""

import json
from typing import Any

from evolq_jax.config.experiment import Experiment
from evolq_jax.errors import UserError
from evolq_jax.json_text import parse_object
from evolq_jax.network.network import Network
from evolq_jax.runs.config_json import NETWORK
from evolq_jax.runs.directory import CONFIG, RunDirectory
from evolq_jax.runs.typed_json import to_plain
from evolq_jax.trees import flatten


def record_network(run: RunDirectory, config: Experiment, network: Network) -> None:
    """Adds the network to the run's config.json.

    Raises:
      UserError: a continued run began with another one, or the file cannot be written.
    """
    check_network(run, network)
    run.write_json(CONFIG, {**to_plain(config), NETWORK: _facts(network)})


def check_network(run: RunDirectory, network: Network) -> None:
    """Compares the network with the one that a run recorded. Runs of older versions have recorded none.

    Raises:
      UserError: it is another one, or is given other images.
    """
    then = parse_object(run.read(CONFIG), f"'{run.path / CONFIG}'").get(NETWORK)
    if not isinstance(then, dict):
        return
    before, now = flatten(then), flatten(_facts(network))
    for name in sorted(before.keys() & now.keys()):  # versions differ in the options that they know
        if before[name] != now[name]:
            raise UserError(
                f"run '{run.path}' has {name.replace('/', '.')} {before[name]}, and now it is {now[name]}: "
                "bring back the files beside its weights, or begin a new run"
            )


def _facts(network: Network) -> dict[str, Any]:
    preprocessing = json.loads(json.dumps(to_plain(network.preprocessing)))
    return {"architecture": network.architecture, "preprocessing": preprocessing}
