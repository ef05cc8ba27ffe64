"""The verb `evaluate`."""

from pathlib import Path
from typing import Any

from evolq_jax.config.experiment import Experiment
from evolq_jax.data import fingerprint
from evolq_jax.devices.precision import matmul_precision
from evolq_jax.pipeline.calibrate import calibrate_setup
from evolq_jax.pipeline.evaluate import score_networks
from evolq_jax.pipeline.images import count_calibration, count_evaluation, load_evaluation
from evolq_jax.pipeline.load import load_model
from evolq_jax.pipeline.watcher import Silent, Watcher
from evolq_jax.runs.directory import open_run
from evolq_jax.runs.provenance import describe, weights_fingerprint
from evolq_jax.runs.result import check_fingerprints
from evolq_jax.runs.saved_network import SavedScales, read_params, read_scales


def run_evaluate(target: str | Path | Experiment, watcher: Watcher | None = None) -> dict[str, Any]:
    """Scores on the evaluation images, computed anew: of a config's float and init, or of a run's scales.

    Args:
      target: a config, which is calibrated first, or the directory of a calibrated or searched run.
      watcher: told how it goes on.

    Returns:
      The part of `result.json` that says how good the networks are.

    Raises:
      UserError: it is no run directory, or its weights or images are not what they were.
    """
    watcher = watcher or Silent()
    config = target if isinstance(target, Experiment) else open_run(target).config()
    with matmul_precision(config.precision):
        if isinstance(target, Experiment):
            setup = load_model(target)
            count_calibration(setup, for_search=False)
            count_evaluation(setup)
            evaluation = load_evaluation(setup, watcher.stage("decoding evaluation images"))
            calibrated = calibrate_setup(setup, watcher, for_search=False)
            params, saved = calibrated.params, SavedScales(calibrated.qparams, None)
        else:
            run = open_run(target)
            setup = load_model(run.config())
            params, saved = read_params(run, setup.model.params), read_scales(run, setup.specs)
            check_fingerprints(run, {"weights": weights_fingerprint(setup.model.params)})
            count_evaluation(setup)
            evaluation = load_evaluation(setup, watcher.stage("decoding evaluation images"))
            check_fingerprints(run, {"evaluation images": fingerprint(evaluation)})
        networks = {"init": saved.init} | ({} if saved.final is None else {"final": saved.final})
        result = score_networks(setup, params, networks, evaluation, watcher)
    return result | describe(setup, len(evaluation.names))
