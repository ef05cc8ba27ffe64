"""The verb `calibrate`."""

from pathlib import Path

from evolq_jax.config.experiment import Experiment
from evolq_jax.devices.precision import matmul_precision
from evolq_jax.errors import UserError
from evolq_jax.paths import user_path
from evolq_jax.pipeline.calibrate import calibrate_setup
from evolq_jax.pipeline.images import count_calibration
from evolq_jax.pipeline.load import load_model
from evolq_jax.pipeline.watcher import Silent, Watcher
from evolq_jax.runs.directory import CONFIG, INIT_SCALES, RunDirectory, open_run
from evolq_jax.runs.results.common import setting_of
from evolq_jax.runs.results.networks import CalibrationResult
from evolq_jax.runs.saved_network import CALIBRATED_FILES, SavedScales, write_calibrated
from evolq_jax.runs.unfinished import VerbFiles, continued_run, difference

CALIBRATION = VerbFiles(
    "calibration", INIT_SCALES, lambda names: CONFIG in names and names <= CALIBRATED_FILES
)


def run_calibrate(
    config: Experiment, run_dir: str | Path | None = None, watcher: Watcher | None = None
) -> CalibrationResult:
    """Calibrates, and writes the scales. A search may start from them (`Experiment.start`).

    Args:
      config: the experiment.
      run_dir: a new directory to write to, or one in which a calibration of the same config was killed, which
        then begins anew. None: the next free `runs/NAME-NNN`.
      watcher: told of the progress.

    Raises:
      UserError: something in the config, the weights, the images or the run directory is wrong.
    """
    with matmul_precision(config.precision), continued_run(run_dir, config, CALIBRATION) as run:
        setup = load_model(config)
        count_calibration(setup, for_search=False)
        calibrated = calibrate_setup(setup, watcher or Silent(), for_search=False)
        scales = SavedScales(calibrated.ranges, calibrated.qparams, None)
        write_calibrated(run, config, calibrated.params, scales, specs=setup.specs)
    return CalibrationResult(
        run_dir=run.path,
        setting=setting_of(config, setup.model.name, setup.added_parameters),
        sites=len(setup.specs),
        scales=sum(calibrated.qparams[name].scale.size for name, spec in setup.specs if spec.has_scale),
        num_calibration_images=len(calibrated.images.pixels),
        seconds=round(calibrated.seconds, 2),
    )


def ensure_calibrated(config: Experiment, run_dir: str | Path, watcher: Watcher | None = None) -> None:
    """Calibrates into a directory, unless it holds the calibrated network of this config already.

    Raises:
      UserError: as `run_calibrate`; or the directory holds that of another config.
    """
    if not RunDirectory(user_path(run_dir, "run directory")).has(INIT_SCALES):
        run_calibrate(config, run_dir, watcher)
        return
    other = difference(open_run(run_dir).config(), config)
    if other:
        raise UserError(f"'{run_dir}' holds the calibrated network of another config: {other}")
