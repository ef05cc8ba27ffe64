"""The network that a search or a descent starts from. An attempt keeps it for the attempts after it."""

import shutil
import time
from dataclasses import dataclass, replace

from evolq_jax.devices import hosts
from evolq_jax.errors import UserError
from evolq_jax.json_text import parse_object
from evolq_jax.pipeline.calibrate import Calibrated, calibrate_setup
from evolq_jax.pipeline.cost import out_of_memory
from evolq_jax.pipeline.images import check_batches, load_calibration
from evolq_jax.pipeline.load import Setup
from evolq_jax.pipeline.watcher import Watcher
from evolq_jax.quant.qparams import QParams
from evolq_jax.runs.checkpoints import CHECKPOINTS
from evolq_jax.runs.clock import Clock
from evolq_jax.runs.directory import CONFIG, RESULT, RunDirectory, open_run
from evolq_jax.runs.loaded_network import check_network
from evolq_jax.runs.provenance import Provenance, input_fingerprints, provenance
from evolq_jax.runs.saved_network import (
    CALIBRATED_FILES,
    SavedScales,
    read_params,
    read_scales,
    write_calibrated,
)
from evolq_jax.runs.typed_json import from_plain, to_plain
from evolq_jax.runs.unfinished import VerbFiles, check_unchanged
from evolq_jax.typing import Images, Params


def _files(verb: str) -> VerbFiles:
    def is_begun(names: set[str]) -> bool:
        """Whether this verb has begun. Killed during calibration, it has left what `calibrate` leaves."""
        return _record_file(verb) in names or (CONFIG in names and names <= CALIBRATED_FILES)

    return VerbFiles(verb, RESULT, is_begun, resumes=True)


def _record_file(verb: str) -> str:
    """The name of the file that exists from the end of calibration to the end of the run."""
    return f"{verb}.json"


SEARCH, BASELINE = _files("search"), _files("baseline")


@dataclass(frozen=True)
class InitRecord:
    """The content of `search.json` or `baseline.json`.

    Attributes:
      provenance: what the init depends on beside the config.
      seconds_calibration: how long the calibration took.
      seconds: how long the run had taken when this was written.
    """

    provenance: Provenance
    seconds_calibration: float
    seconds: float


def provenance_of(setup: Setup, calibration: Images, evaluation: Images) -> Provenance:
    """What, beside the config, decides the bits of a search or a descent."""
    images, candidates = setup.config.search.chunks()
    return provenance(
        setup.mesh,
        fingerprints=input_fingerprints(setup.model.params, calibration, evaluation),
        chunks={"images": images, "candidates": candidates, "inputs": setup.config.search.prefixes},
    )


def init_network(
    run: RunDirectory, files: VerbFiles, setup: Setup, evaluation: Images, *, clock: Clock, watcher: Watcher
) -> Calibrated:
    """The calibrated network. It is read if an earlier attempt has calibrated, else made and written.

    Args:
      run: the directory.
      files: of the verb.
      setup: the loaded network and its quantizers.
      evaluation: evaluation images, which must be those of the earlier attempt.
      clock: of the run; it adds the time of earlier attempts.
      watcher: told of the progress.

    Raises:
      UserError: as `make_init`; or an earlier attempt began with other inputs, on another device or with
        other versions.
    """
    if run.has(_record_file(files.verb)):
        images = load_calibration(setup, watcher.stage("decoding calibration images"))
        kept = _read_record(run, files.verb)
        check_unchanged(run, files.verb, kept.provenance, provenance_of(setup, images, evaluation))
        clock.earlier = kept.seconds
        params = read_params(run, setup.config, setup.model.params)
        scales = read_scales(run, setup.specs, setup.blank_qparams)
        return Calibrated(setup, params, scales.init, scales.ranges, images, kept.seconds_calibration)
    with out_of_memory("--calibration.image-chunk", "--calibration.batch-size"):
        calibrated = make_init(setup, watcher)
    scales = SavedScales(calibrated.ranges, calibrated.qparams, None)
    write_calibrated(run, setup.config, calibrated.params, scales, specs=setup.specs)
    now = provenance_of(setup, calibrated.images, evaluation)
    run.write_json(_record_file(files.verb), InitRecord(now, calibrated.seconds, clock.seconds()))
    return calibrated


def _read_record(run: RunDirectory, verb: str) -> InitRecord:
    path = run.path / _record_file(verb)
    try:
        found = parse_object(run.read(path.name), f"'{path}'")
        return from_plain(found, InitRecord, f"'{path}'", "record of an init")
    except UserError as error:
        raise UserError(f"{error}; start anew, or go on with the version that began") from error


def remove_attempts(run: RunDirectory, verb: str) -> None:
    """Removes the files that only a continued run needs."""
    if not hosts.is_first():
        return
    shutil.rmtree(run.path / CHECKPOINTS, ignore_errors=True)
    (run.path / _record_file(verb)).unlink(missing_ok=True)


def make_init(setup: Setup, watcher: Watcher) -> Calibrated:
    """The network that a search or a descent starts from: newly calibrated, or that of the run `start`.

    That is the run's result, or its init if it has only calibrated.

    Raises:
      UserError: the images cannot be read or do not fill whole batches; or the run to start from has not
        finished, or is one of another network or with other quantizers.
    """
    if setup.config.start is None:
        return calibrate_setup(setup, watcher, for_search=True)
    began = time.monotonic()
    params, found, ranges = read_start(setup, setup.config.start)
    images = load_calibration(setup, watcher.stage("decoding calibration images"))
    check_batches(setup.config, len(images.pixels), for_search=True, skipped=len(images.skipped))
    return Calibrated(setup, params, found, ranges, images, time.monotonic() - began)


def check_start(setup: Setup) -> None:
    """Refuses a run to start from that cannot be started from, before anything is computed.

    Raises:
      UserError: as `read_start`.
    """
    if setup.config.start is not None:
        read_start(setup, setup.config.start)


def read_start(setup: Setup, start: str) -> tuple[Params, QParams, QParams | None]:
    """The network that a run ended with, or its init if it has only calibrated.

    Returns:
      Its parameters, its scales, and those after plain ranges if there are any.

    Raises:
      UserError: the run has not finished, or is one of another network or with other quantizers.
    """
    config, run = setup.config, open_run(start)
    then = run.config()
    chunk = config.calibration.image_chunk  # a limit of memory may have lowered it
    then = replace(then, calibration=replace(then.calibration, image_chunk=chunk))
    for part in ("model", "preprocessing", "quant", "calibration"):
        if to_plain(getattr(then, part)) != to_plain(getattr(config, part)):
            raise UserError(f"start '{start}' has other `{part}` settings than this config")
    check_network(run, setup.model)
    scales = read_scales(run, setup.specs, setup.blank_qparams)
    found = scales.init if run.names() <= CALIBRATED_FILES else scales.final
    if found is None:
        raise UserError(f"start '{start}' holds no result: it has not finished")
    return read_params(run, config, setup.model.params), found, scales.ranges
