"""A calibrated or searched network in a run's directory: its parameters and scales, written and read."""

from typing import Literal, NamedTuple

import jax.numpy as jnp

from evolq_jax.config.experiment import Experiment
from evolq_jax.errors import UserError
from evolq_jax.network.parts import CORRECTION
from evolq_jax.quant.qparams import QParams
from evolq_jax.quant.spec import Specs
from evolq_jax.runs.directory import FINAL_SCALES, INIT_SCALES, PARAMS, RunDirectory
from evolq_jax.trees import flatten, unflatten
from evolq_jax.typing import Params


class SavedScales(NamedTuple):
    """The scales of a run."""

    init: QParams
    final: QParams | None  # None: only calibrated, or not finished

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
    run: RunDirectory, config: Experiment, params: Params, qparams: QParams, *, specs: Specs
) -> None:
    """The first scales and, where the chain of `config` changed them, the parameters that they are for."""
    if _changes_params(config):
        run.write_arrays(PARAMS, flatten(params))
    run.write_qparams(INIT_SCALES, specs, qparams)


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
    return unflatten({name: jnp.asarray(arrays[name]) for name in (*expected, *sorted(added))})


def read_scales(run: RunDirectory, specs: Specs, blank: QParams) -> SavedScales:
    """The run's scales, put into `blank`, whose bits count where a file names none.

    Raises:
      UserError: a file is missing or damaged, or holds scales of other sites than `specs` have.
    """
    init = run.read_qparams(INIT_SCALES, specs, blank)
    return SavedScales(init, run.read_qparams(FINAL_SCALES, specs, blank) if run.has(FINAL_SCALES) else None)
