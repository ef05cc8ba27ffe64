"""The verb `calibrate`."""

from pathlib import Path

from evolq_jax.config.experiment import Experiment
from evolq_jax.devices.precision import matmul_precision
from evolq_jax.pipeline.calibrate import calibrate_setup
from evolq_jax.pipeline.images import count_calibration
from evolq_jax.pipeline.load import load_model
from evolq_jax.pipeline.watcher import Silent, Watcher
from evolq_jax.runs.directory import new_run
from evolq_jax.runs.results.common import setting_of
from evolq_jax.runs.results.networks import CalibrationResult
from evolq_jax.runs.saved_network import write_calibrated


def run_calibrate(
    config: Experiment, run_dir: str | Path | None = None, watcher: Watcher | None = None
) -> CalibrationResult:
    """Calibrates, and writes the scales.

    Args:
      config: the experiment.
      run_dir: a new directory to write to; None: the next free `runs/NAME-NNN`.
      watcher: told of the progress.

    Raises:
      UserError: something in the config, the weights, the images or the run directory is wrong.
    """
    with matmul_precision(config.precision), new_run(run_dir, config) as run:
        setup = load_model(config)
        count_calibration(setup, for_search=False)
        calibrated = calibrate_setup(setup, watcher or Silent(), for_search=False)
        write_calibrated(run, config, calibrated.params, calibrated.qparams, specs=setup.specs)
    return CalibrationResult(
        run_dir=run.path,
        setting=setting_of(config, setup.model.name, setup.added_parameters),
        sites=len(setup.specs),
        scales=sum(calibrated.qparams[name].scale.size for name, spec in setup.specs if spec.has_scale),
        num_calibration_images=len(calibrated.images.pixels),
        seconds=round(calibrated.seconds, 2),
    )
