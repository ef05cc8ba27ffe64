"""The verb `evaluate`."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

from evolq_jax.config.experiment import DataConfig, Experiment
from evolq_jax.data import fingerprint
from evolq_jax.devices.precision import matmul_precision
from evolq_jax.metrics import mean_scores, paired_delta
from evolq_jax.pipeline.calibrate import calibrate_setup, stages_of
from evolq_jax.pipeline.evaluate import FLOAT, compile_ahead_of_scores, score_networks
from evolq_jax.pipeline.images import count_calibration, count_evaluation, load_evaluation
from evolq_jax.pipeline.load import Setup, load_model
from evolq_jax.pipeline.watcher import Silent, Watcher
from evolq_jax.quantized.size import size_of
from evolq_jax.runs.directory import RESULT, RunDirectory, open_run
from evolq_jax.runs.loaded_network import check_network
from evolq_jax.runs.provenance import weights_fingerprint
from evolq_jax.runs.results.common import setting_of
from evolq_jax.runs.results.files import check_fingerprints, read_result
from evolq_jax.runs.results.networks import BaselineResult, EvaluationResult, SearchResult
from evolq_jax.runs.saved_network import SavedScales, read_params, read_scales
from evolq_jax.typing import Params


def run_evaluate(
    target: str | Path | Experiment, watcher: Watcher | None = None, *, data: DataConfig | None = None
) -> EvaluationResult:
    """Scores a network on the evaluation images: in float, at its init and, if it has any, its last scales.

    Args:
      target: a config, which is calibrated first; or the directory of a run, whose scales are read.
      watcher: told of the progress.
      data: other images to score a run on; None: those of its config, which must be the same still.

    Raises:
      UserError: `target` is no run directory, or its weights or images are not those of the run.
    """
    watcher = watcher or Silent()
    config = target if isinstance(target, Experiment) else open_run(target).config()
    config = config if data is None else replace(config, data=data)
    found_by = None
    with matmul_precision(config.precision):
        if isinstance(target, Experiment):
            setup = load_model(config)
            count_calibration(setup, for_search=False)
            compile_ahead_of_scores(setup, setup.model, count_evaluation(setup))
            evaluation = load_evaluation(setup, watcher.stage("decoding evaluation images"))
            calibrated = calibrate_setup(setup, watcher, for_search=False)
            params = calibrated.params
            saved = SavedScales(calibrated.ranges, calibrated.qparams, None)
        else:
            run = open_run(target)
            setup, params, saved = load_run(run, config)
            found_by = _found_by(run)
            compile_ahead_of_scores(setup, setup.model, count_evaluation(setup))
            evaluation = load_evaluation(setup, watcher.stage("decoding evaluation images"))
            if data is None:
                check_fingerprints(run, {"evaluation images": fingerprint(evaluation)})
        stages = stages_of(setup, params, ranges=saved.ranges, init=saved.init, final=saved.final)
        scores = score_networks(setup, stages, evaluation=evaluation, watcher=watcher)
    init, final = scores["init"], scores.get("final")
    last = "init" if final is None else "final"
    return EvaluationResult(
        setting=setting_of(config, setup.model, setup.added_parameters),
        num_evaluation_images=len(evaluation.names),
        float=mean_scores(scores[FLOAT]),
        ranges=mean_scores(scores["ranges"]) if "ranges" in scores else None,
        init=mean_scores(init),
        from_float=paired_delta(scores[FLOAT], scores[last], seed=config.seed),
        size=size_of(stages[last]),
        final=None if final is None else mean_scores(final),
        delta=None if final is None else paired_delta(init, final, seed=config.seed),
        found_by=found_by,
    )


def load_run(run: RunDirectory, config: Experiment) -> tuple[Setup, Params, SavedScales]:
    """The network of a run: what is quantized of it, its parameters, and the scales that it has.

    Raises:
      UserError: a file is missing or damaged, or the weights are not those of the run.
    """
    setup = load_model(config)
    check_network(run, setup.model)
    params = read_params(run, config, setup.model.params)
    saved = read_scales(run, setup.specs, setup.blank_qparams)
    check_fingerprints(run, {"weights": weights_fingerprint(setup.model.params)})
    return setup, params, saved


def _found_by(run: RunDirectory) -> Literal["search", "baseline"] | None:
    """The kind of a run; None: it has not finished."""
    result = read_result(run.path) if run.has(RESULT) else None
    return result.kind if isinstance(result, SearchResult | BaselineResult) else None
