"""The networks in a run's directory: parameters and scales, written and read."""

import jax.numpy as jnp

from evolq_jax.errors import UserError
from evolq_jax.network.parts import CORRECTION
from evolq_jax.pipeline.calibrate import Calibrated
from evolq_jax.pipeline.load import Setup
from evolq_jax.quant.qparams import QParams
from evolq_jax.runs.directory import FINAL_SCALES, INIT_SCALES, PARAMS, RunDirectory
from evolq_jax.trees import flatten, unflatten
from evolq_jax.typing import Params


def write_calibrated(run: RunDirectory, calibrated: Calibrated) -> None:
    """The first scales and, where the chain changed them, the parameters that they are for."""
    if _changes_params(calibrated.setup):
        run.write_arrays(PARAMS, flatten(calibrated.params))
    run.write_qparams(INIT_SCALES, calibrated.qparams)


def _changes_params(setup: Setup) -> bool:
    return any(link != "ranges" for link in setup.config.calibration.chain)


def read_params(run: RunDirectory, setup: Setup) -> Params:
    """The parameters that the run's scales are for: its own, or the float network's.

    Raises:
      UserError: its own are missing, damaged or those of another network.
    """
    if not _changes_params(setup):
        return setup.model.params
    if not run.has(PARAMS):
        raise UserError(
            f"run '{run.path}' lacks {PARAMS}, which its chain of initialisers writes: run it again"
        )
    arrays, expected = run.read_arrays(PARAMS), flatten(setup.model.params)
    added = {name for name in arrays if f"/{CORRECTION}/" in name}
    shapes = {name: leaf.shape for name, leaf in arrays.items() if name not in added}
    corrected = "block_linear" in setup.config.calibration.chain
    if shapes != {name: leaf.shape for name, leaf in expected.items()} or bool(added) != corrected:
        raise UserError(f"the parameters in '{run.path}' do not fit its config: run it again")
    return unflatten({name: jnp.asarray(arrays[name]) for name in (*expected, *sorted(added))})


def read_networks(run: RunDirectory, setup: Setup) -> dict[str, QParams]:
    """The run's scales: `init` and, where the search has ended, `final`.

    Raises:
      UserError: a file is missing or damaged, or holds scales of other sites than the config's.
    """
    expected = {name for name, spec in setup.specs if spec.has_scale}
    networks = {"init": run.read_qparams(INIT_SCALES)}
    if run.has(FINAL_SCALES):
        networks["final"] = run.read_qparams(FINAL_SCALES)
    for name, qparams in networks.items():
        if set(qparams) != expected:
            wrong = ", ".join(sorted(set(qparams) ^ expected)[:3])
            raise UserError(
                f"the {name} scales in '{run.path}' do not fit its config: {wrong} missing or extra"
            )
    return networks
