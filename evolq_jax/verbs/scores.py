"""The end of a run: its last scales, its scores, and `result.json`."""

from collections.abc import Mapping
from typing import Any

from evolq_jax.gradient.records import Descent
from evolq_jax.pipeline.calibrate import Calibrated
from evolq_jax.pipeline.evaluate import score_networks
from evolq_jax.pipeline.watcher import Watcher
from evolq_jax.runs.directory import FINAL_SCALES, RESULT, RunDirectory
from evolq_jax.runs.milestones import read_milestones
from evolq_jax.runs.provenance import describe, environment, inputs
from evolq_jax.search.records import SearchResult
from evolq_jax.typing import Images


def score_run(
    run: RunDirectory,
    calibrated: Calibrated,
    found: SearchResult | Descent,
    evaluation: Images,
    watcher: Watcher,
) -> dict[str, Any]:
    """Writes the scales that a run ends with; gives the scores of float, init and final, and what went in.

    With milestones, `trajectory` has the scores from init over these to final.
    """
    setup = calibrated.setup
    run.write_qparams(FINAL_SCALES, found.qparams)
    entries, kept = read_milestones(run)
    names = [f"milestone {number + 1}" for number in range(len(kept))]
    networks = {"init": calibrated.qparams, **dict(zip(names, kept, strict=True)), "final": found.qparams}
    result = score_networks(setup, calibrated.params, networks, evaluation, watcher)
    scores = [result["init"], *(result.pop(name) for name in names), result["final"]]
    begin = {"candidate_images": 0, "calibration_fitness": found.start_fitness}
    end = {"candidate_images": found.candidate_images, "calibration_fitness": found.fitness}
    points = [begin, *({**begin, **entry} for entry in entries), end]
    trajectory = [point | score for point, score in zip(points, scores, strict=True)]
    result |= describe(setup, len(evaluation.names)) | environment(setup.mesh)
    result |= inputs(setup, calibrated.images, evaluation)
    result |= {
        "budget_spent": found.candidate_images,
        "calibration_fitness": {"init": found.start_fitness, "final": found.fitness},
        "seconds_calibration": round(calibrated.seconds, 2),
        "seconds_search": round(found.seconds, 2),
    }
    return result | ({"trajectory": trajectory} if setup.config.milestones else {})


def end_run(run: RunDirectory, result: Mapping[str, Any]) -> dict[str, Any]:
    """Writes `result.json`, which says that a run has finished."""
    run.write_json(RESULT, result)
    return {**result, "run_dir": str(run.path)}
