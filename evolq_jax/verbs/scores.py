"""Scores a run: its float network, its init, its milestones and its last scales."""

from dataclasses import replace

from evolq_jax.gradient.state import DescentEnd
from evolq_jax.metrics import Scores, mean_scores, paired_delta
from evolq_jax.pipeline.calibrate import Calibrated
from evolq_jax.pipeline.evaluate import FLOAT, score_networks
from evolq_jax.pipeline.watcher import Watcher
from evolq_jax.quantized.size import size_of
from evolq_jax.runs.clock import Clock
from evolq_jax.runs.directory import FINAL_SCALES, RunDirectory
from evolq_jax.runs.milestones import Milestone, read_milestones
from evolq_jax.runs.results.common import setting_of
from evolq_jax.runs.results.networks import Fitness, Improvement, SkippedImages, TrajectoryPoint
from evolq_jax.search.state import SearchEnd
from evolq_jax.typing import Images
from evolq_jax.verbs.init_network import provenance_of

End = SearchEnd | DescentEnd


def score_run(
    run: RunDirectory,
    calibrated: Calibrated,
    found: End,
    evaluation: Images,
    *,
    clock: Clock,
    watcher: Watcher,
) -> Improvement:
    """Writes the last scales of a search or a baseline, and scores the run.

    Args:
      run: the directory. Its milestones make the trajectory.
      calibrated: the network at its init.
      found: what the search or the descent ended with.
      evaluation: the images to score on.
      clock: of the run.
      watcher: told of each network that is scored.

    Returns:
      The part of the result that searches and baselines share.
    """
    setup = calibrated.setup
    run.write_qparams(FINAL_SCALES, setup.specs, found.qparams)
    passed = read_milestones(run, setup.specs, calibrated.qparams)
    on_the_way = {
        f"milestone {number + 1}": replace(calibrated.quantized, qparams=qparams)
        for number, (_, qparams) in enumerate(passed)
    }
    stages = calibrated.stages(found.qparams)
    scores = score_networks(setup, stages | on_the_way, evaluation=evaluation, watcher=watcher)
    means = {name: mean_scores(each) for name, each in scores.items()}
    begin, end = Milestone(0.0, found.start_fitness), Milestone(found.candidate_images, found.fitness)
    points = [begin, *(milestone for milestone, _ in passed), end]
    return Improvement(
        run_dir=run.path,
        setting=setting_of(setup.config, setup.model, setup.added_parameters),
        float=means[FLOAT],
        ranges=means.get("ranges"),
        init=means["init"],
        from_float=paired_delta(scores[FLOAT], scores["final"], seed=setup.config.seed),
        size=size_of(stages["final"]),
        final=means["final"],
        delta=paired_delta(scores["init"], scores["final"], seed=setup.config.seed),
        calibration_fitness=Fitness(found.start_fitness, found.fitness),
        budget_spent=float(found.candidate_images),
        num_calibration_images=len(calibrated.images.pixels),
        num_evaluation_images=len(evaluation.names),
        skipped_images=SkippedImages(len(calibrated.images.skipped), len(evaluation.skipped)),
        seconds=round(clock.seconds(), 2),
        seconds_calibration=round(calibrated.seconds, 2),
        seconds_search=round(found.seconds, 2),
        provenance=provenance_of(setup, calibrated.images, evaluation),
        trajectory=tuple(
            _point(milestone, means[name], found.start_fitness)
            for milestone, name in zip(points, ("init", *on_the_way, "final"), strict=True)
        )
        if setup.config.milestones
        else (),
    )


def _point(milestone: Milestone, scores: Scores, start_fitness: float) -> TrajectoryPoint:
    """A point of the trajectory. A milestone without fitness has the scales and the fitness of the start."""
    fitness = milestone.calibration_fitness
    return TrajectoryPoint(
        **vars(scores),
        candidate_images=float(milestone.candidate_images),
        calibration_fitness=start_fitness if fitness is None else fitness,
    )
