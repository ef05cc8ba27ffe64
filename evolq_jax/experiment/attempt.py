"""A search's bookkeeping over its attempts: what it depends on, how long it took, how it ends."""

import json
import shutil
import time
from typing import Any, NamedTuple

from evolq_jax import hosts
from evolq_jax.errors import UserError
from evolq_jax.experiment.checkpoints import CHECKPOINTS
from evolq_jax.experiment.continued import Kind, check_unchanged
from evolq_jax.experiment.result import environment, inputs
from evolq_jax.experiment.run_directory import CONFIG, INIT_SCALES, PARAMS, RESULT, RunDirectory
from evolq_jax.experiment.setup import Setup
from evolq_jax.trees import flatten
from evolq_jax.typing import Images

BEGUN = "search.json"  # written once calibration is over, gone when the search is


def _is_begun(names: set[str]) -> bool:
    """Whether these are a search's; killed during calibration, it left no more than `calibrate` does."""
    return BEGUN in names or (CONFIG in names and names <= {CONFIG, INIT_SCALES, PARAMS})


SEARCH = Kind("search", RESULT, _is_begun)


class Clock:
    """Seconds of the run, with those of earlier attempts up to where this one goes on."""

    def __init__(self) -> None:
        self.earlier = 0.0
        self._began = time.monotonic()

    def seconds(self) -> float:
        """Until now."""
        return self.earlier + time.monotonic() - self._began


class Begun(NamedTuple):
    """What `search.json` holds."""

    depends_on: dict[str, Any]
    seconds_calibration: float
    seconds: float  # of the whole run until the search began


def depends_on(setup: Setup, calibration: Images, evaluation: Images) -> dict[str, Any]:
    """What the bits of a search's result depend on, beside the config."""
    return {
        **inputs(setup, calibration, evaluation)["fingerprints"],
        "chunks": [*setup.config.search.chunks(), setup.config.search.prefixes],
        **flatten(environment(setup.mesh)),
    }


def write_begun(run: RunDirectory, begun: Begun) -> None:
    """Calibration's files are there and stand for these inputs."""
    run.write_json(BEGUN, begun._asdict())


def read_begun(run: RunDirectory, now: dict[str, Any]) -> Begun:
    """What an earlier attempt wrote.

    Raises:
      UserError: it began with other inputs, on another device or with other versions; or it is damaged.
    """
    try:
        begun = Begun(**json.loads(run.read(BEGUN)))
    except (json.JSONDecodeError, TypeError) as error:
        raise UserError(f"'{run.path / BEGUN}' is damaged ({error}); start anew") from error
    check_unchanged(run, SEARCH.name, begun.depends_on, now)
    return begun


def end_search(run: RunDirectory) -> None:
    """Takes away what only a continued search needs."""
    if not hosts.is_first():
        return
    shutil.rmtree(run.path / CHECKPOINTS, ignore_errors=True)
    (run.path / BEGUN).unlink(missing_ok=True)
