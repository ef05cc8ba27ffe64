"""The network that a search or a descent begins with, kept in its directory from attempt to attempt."""

import json
import shutil
import time
from typing import Any, NamedTuple

from evolq_jax.devices import hosts
from evolq_jax.errors import UserError
from evolq_jax.pipeline.calibrate import Calibrated, calibrate_setup
from evolq_jax.pipeline.cost import out_of_memory
from evolq_jax.pipeline.images import check_batches, load_calibration
from evolq_jax.pipeline.load import Setup
from evolq_jax.pipeline.watcher import Watcher
from evolq_jax.runs.checkpoints import CHECKPOINTS
from evolq_jax.runs.clock import Clock
from evolq_jax.runs.directory import CONFIG, INIT_SCALES, PARAMS, RESULT, RunDirectory, open_run
from evolq_jax.runs.provenance import environment, inputs
from evolq_jax.runs.saved_network import read_params, read_scales, write_calibrated
from evolq_jax.runs.unfinished import VerbFiles, check_unchanged
from evolq_jax.trees import flatten
from evolq_jax.typing import Images


def _files(verb: str) -> VerbFiles:
    def is_begun(names: set[str]) -> bool:
        """Killed during calibration, it left no more than `calibrate` does."""
        return _begun(verb) in names or (CONFIG in names and names <= {CONFIG, INIT_SCALES, PARAMS})

    return VerbFiles(verb, RESULT, is_begun)


def _begun(verb: str) -> str:
    """The file that is written once calibration is over, and gone when the run is."""
    return f"{verb}.json"


SEARCH, BASELINE = _files("search"), _files("baseline")


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


def init_network(
    run: RunDirectory, files: VerbFiles, setup: Setup, evaluation: Images, *, clock: Clock, watcher: Watcher
) -> Calibrated:
    """The calibrated network: that of an earlier attempt, or a new one.

    Raises:
      UserError: as `first_qparams`; or an earlier attempt began with other inputs, on another device or with
        other versions.
    """
    if run.has(_begun(files.verb)):
        images = load_calibration(setup, watcher.stage("decoding calibration images"))
        begun = _read_begun(run, files.verb, depends_on(setup, images, evaluation))
        clock.earlier = begun.seconds
        params, qparams = read_params(run, setup.model.params), read_scales(run, setup.specs).init
        return Calibrated(setup, params, qparams, images, begun.seconds_calibration)
    with out_of_memory("--calibration.image-chunk", "--calibration.batch-size"):
        calibrated = first_qparams(setup, watcher)
    write_calibrated(run, setup.config, calibrated.params, calibrated.qparams)
    inputs_now = depends_on(setup, calibrated.images, evaluation)
    run.write_json(_begun(files.verb), Begun(inputs_now, calibrated.seconds, clock.seconds())._asdict())
    return calibrated


def _read_begun(run: RunDirectory, verb: str, now: dict[str, Any]) -> Begun:
    """What an earlier attempt wrote.

    Raises:
      UserError: it began with other inputs, on another device or with other versions; or it is damaged.
    """
    name = _begun(verb)
    try:
        begun = Begun(**json.loads(run.read(name)))
    except (json.JSONDecodeError, TypeError) as error:
        raise UserError(f"'{run.path / name}' is damaged ({error}); start anew") from error
    check_unchanged(run, verb, begun.depends_on, now)
    return begun


def remove_attempts(run: RunDirectory, verb: str) -> None:
    """Takes away what only a continued run needs."""
    if not hosts.is_first():
        return
    shutil.rmtree(run.path / CHECKPOINTS, ignore_errors=True)
    (run.path / _begun(verb)).unlink(missing_ok=True)


def first_qparams(setup: Setup, watcher: Watcher) -> Calibrated:
    """What a search or a descent begins with: the calibrated network, or the result of `config.start`.

    Raises:
      UserError: the images cannot be read or do not fill whole batches; or the run to start from has not
        finished, or is one of another network or with other quantizers.
    """
    config = setup.config
    if config.start is None:
        return calibrate_setup(setup, watcher, for_search=True)
    run, began = open_run(config.start), time.monotonic()
    then = run.config()
    for part in ("model", "quant", "calibration"):
        if getattr(then, part) != getattr(config, part):
            raise UserError(f"start '{config.start}' has other `{part}` settings than this config")
    final = read_scales(run, setup.specs).final
    if final is None:
        raise UserError(f"start '{config.start}' holds no result: it has not finished")
    images = load_calibration(setup, watcher.stage("decoding calibration images"))
    check_batches(config, len(images.pixels), for_search=True, skipped=len(images.skipped))
    seconds = time.monotonic() - began
    return Calibrated(setup, read_params(run, setup.model.params), final, images, seconds)
