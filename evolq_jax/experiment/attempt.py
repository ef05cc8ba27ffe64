"""Searches and baselines over their attempts: how they begin or go on, what they depend on, how they end."""

import json
import shutil
import time
from typing import Any, NamedTuple

from evolq_jax import hosts
from evolq_jax.errors import UserError
from evolq_jax.experiment.calibrated import (
    Calibrated,
    first_scales,
    read_networks,
    read_params,
    write_calibrated,
)
from evolq_jax.experiment.checkpoints import CHECKPOINTS
from evolq_jax.experiment.continued import Kind, check_unchanged
from evolq_jax.experiment.images import load_calibration
from evolq_jax.experiment.memory import out_of_memory
from evolq_jax.experiment.result import environment, inputs
from evolq_jax.experiment.run_directory import CONFIG, INIT_SCALES, PARAMS, RESULT, RunDirectory
from evolq_jax.experiment.setup import Setup
from evolq_jax.experiment.watch import Watcher
from evolq_jax.trees import flatten
from evolq_jax.typing import Images


def _kind(verb: str) -> Kind:
    def is_begun(names: set[str]) -> bool:
        """Killed during calibration, it left no more than `calibrate` does."""
        return _begun(verb) in names or (CONFIG in names and names <= {CONFIG, INIT_SCALES, PARAMS})

    return Kind(verb, RESULT, is_begun)


def _begun(verb: str) -> str:
    """The file that is written once calibration is over, and gone when the run is."""
    return f"{verb}.json"


SEARCH, BASELINE = _kind("search"), _kind("baseline")


class Clock:
    """Seconds of the run, with those of earlier attempts up to where this one goes on."""

    def __init__(self) -> None:
        self.earlier = 0.0
        self._began = time.monotonic()

    def seconds(self) -> float:
        """Until now."""
        return self.earlier + time.monotonic() - self._began


class Begun(NamedTuple):
    """What `search.json` or `baseline.json` holds."""

    depends_on: dict[str, Any]
    seconds_calibration: float
    seconds: float  # of the whole run until then


def depends_on(setup: Setup, calibration: Images, evaluation: Images) -> dict[str, Any]:
    """What the bits of a result depend on, beside the config."""
    return {
        **inputs(setup, calibration, evaluation)["fingerprints"],
        "chunks": [*setup.config.search.chunks(), setup.config.search.prefixes],
        **flatten(environment(setup.mesh)),
    }


def begin(
    kind: Kind, run: RunDirectory, setup: Setup, evaluation: Images, clock: Clock, watcher: Watcher
) -> Calibrated:
    """The calibrated network: that of an earlier attempt, or a new one.

    Raises:
      UserError: as `first_scales`; or an earlier attempt began with other inputs, on another device or with
        other versions.
    """
    if run.has(_begun(kind.name)):
        images = load_calibration(setup, watcher.stage("decoding calibration images"))
        begun = _read_begun(kind, run, depends_on(setup, images, evaluation))
        clock.earlier = begun.seconds
        scales = read_networks(run, setup)["init"]
        return Calibrated(setup, read_params(run, setup), scales, images, begun.seconds_calibration)
    with out_of_memory("--calibration.image-chunk", "--calibration.batch-size"):
        calibrated = first_scales(setup, watcher)
    write_calibrated(run, calibrated)
    inputs_now = depends_on(setup, calibrated.images, evaluation)
    run.write_json(_begun(kind.name), Begun(inputs_now, calibrated.seconds, clock.seconds())._asdict())
    return calibrated


def _read_begun(kind: Kind, run: RunDirectory, now: dict[str, Any]) -> Begun:
    """What an earlier attempt wrote.

    Raises:
      UserError: it began with other inputs, on another device or with other versions; or it is damaged.
    """
    name = _begun(kind.name)
    try:
        begun = Begun(**json.loads(run.read(name)))
    except (json.JSONDecodeError, TypeError) as error:
        raise UserError(f"'{run.path / name}' is damaged ({error}); start anew") from error
    check_unchanged(run, kind.name, begun.depends_on, now)
    return begun


def end(kind: Kind, run: RunDirectory) -> None:
    """Takes away what only a continued run needs."""
    if not hosts.is_first():
        return
    shutil.rmtree(run.path / CHECKPOINTS, ignore_errors=True)
    (run.path / _begun(kind.name)).unlink(missing_ok=True)
