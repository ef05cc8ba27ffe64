"""A calibrated or searched network in a run's directory: its parameters and scales, written and read."""

from typing import Literal, NamedTuple

import jax

from evolq_jax.config.experiment import Experiment
from evolq_jax.errors import UserError
from evolq_jax.network.parts import CORRECTION
from evolq_jax.quant.qparams import QParams
from evolq_jax.quant.spec import Specs
from evolq_jax.runs.check_qparams import other_bits
from evolq_jax.runs.directory import (
    CONFIG,
    FINAL_SCALES,
    INIT_SCALES,
    PARAMS,
    RANGES_SCALES,
    RESULT,
    RunDirectory,
)
from evolq_jax.trees import flatten, unflatten
from evolq_jax.typing import Params

CALIBRATED_FILES = {CONFIG, PARAMS, RANGES_SCALES, INIT_SCALES}  # those of a run that has only calibrated


class SavedScales(NamedTuple):
    """The scales of a run.

    Attributes:
      ranges: those after the chain's first link, for the float parameters. None: the chain has no other
        link, or the run is of an older version.
      init: those after the chain.
      final: those that the run ended with. None: it only calibrated, or has not finished.
    """

    ranges: QParams | None
    init: QParams
    final: QParams | None

    def named(self, name: Literal["init", "final"]) -> QParams:
        """One of them.

        Raises:
          UserError: it is the final ones, and there are none.
        """
        if name == "init":
            return self.init
        if self.final is None:
            raise UserError(f"there is no {FINAL_SCALES}: the run has not finished")
        return self.final


def write_calibrated(
    run: RunDirectory, config: Experiment, params: Params, scales: SavedScales, *, specs: Specs
) -> None:
    """The first scales and, where the chain of `config` changed them, the parameters that they are for.

    The scales after the whole chain are written last: a run that has them is calibrated.
    """
    if _changes_params(config):
        run.write_arrays(PARAMS, flatten(params))
    if scales.ranges is not None:
        run.write_qparams(RANGES_SCALES, specs, scales.ranges)
    run.write_qparams(INIT_SCALES, specs, scales.init)


def _changes_params(config: Experiment) -> bool:
    return any(link.changes_params for link in config.calibration.links)


def read_params(run: RunDirectory, config: Experiment, float_params: Params) -> Params:
    """The parameters that the run's scales are for: its own, or the float network's.

    `config` has the run's chain. The recorded config knows links that Python passed by their names alone.

    Raises:
      UserError: its own are missing, damaged or those of another network.
    """
    if not _changes_params(config):
        return float_params
    if not run.has(PARAMS):
        raise UserError(
            f"run '{run.path}' lacks {PARAMS}, which its chain of initialisers writes: run it again"
        )
    arrays, expected = run.read_arrays(PARAMS), flatten(float_params)
    added = {name for name in arrays if f"/{CORRECTION}/" in name}
    shapes = {name: leaf.shape for name, leaf in arrays.items() if name not in added}
    corrected = any(link.added_parameters is not None for link in config.calibration.links)
    if shapes != {name: leaf.shape for name, leaf in expected.items()} or bool(added) != corrected:
        raise UserError(f"the parameters in '{run.path}' do not fit its config: run it again")
    return unflatten({name: jax.device_put(arrays[name]) for name in (*expected, *sorted(added))})


def read_scales(run: RunDirectory, specs: Specs, blank: QParams) -> SavedScales:
    """The run's scales. `blank` has the bits of its config.

    Raises:
      UserError: a file is missing or damaged, or holds scales of other sites than `specs` have, or others
        than its config's bits; or a finished run lacks its last scales.
    """

    def read(file: str) -> QParams:
        qparams = run.read_qparams(file, specs, blank)
        other = other_bits(qparams, blank)
        if other is not None:
            raise UserError(f"'{run.path / file}' does not fit the run's config: {other}; bring its own back")
        return qparams

    def found(file: str) -> QParams | None:
        return read(file) if run.has(file) else None

    if run.has(RESULT) and not run.has(FINAL_SCALES):
        raise UserError(f"the run in '{run.path}' has finished, but lacks {FINAL_SCALES}: bring it back")
    return SavedScales(found(RANGES_SCALES), read(INIT_SCALES), found(FINAL_SCALES))
