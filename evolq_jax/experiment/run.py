"""The main verbs: calibrate, search, evaluate."""

from pathlib import Path
from typing import Any

import jax

from evolq_jax.config import Experiment
from evolq_jax.data import fingerprint
from evolq_jax.experiment.attempt import SEARCH, Clock, begin, end
from evolq_jax.experiment.calibrated import (
    Calibrated,
    calibrate,
    first_tokens,
    read_networks,
    read_params,
    teacher_features,
    teacher_logits,
    write_calibrated,
)
from evolq_jax.experiment.checkpoints import Saved, open_checkpoints
from evolq_jax.experiment.continued import continued_run
from evolq_jax.experiment.evaluate import score_networks
from evolq_jax.experiment.images import (
    count_calibration,
    count_evaluation,
    load_evaluation,
)
from evolq_jax.experiment.memory import fit_memory, out_of_memory
from evolq_jax.experiment.milestones import Milestones
from evolq_jax.experiment.outcome import end_run, score_run
from evolq_jax.experiment.output_start import output_start
from evolq_jax.experiment.plan import budget_of_search, num_total
from evolq_jax.experiment.preemption import Preemption, preemptible
from evolq_jax.experiment.result import (
    check_fingerprints,
    describe,
    weights_fingerprint,
)
from evolq_jax.experiment.run_directory import (
    RunDirectory,
    new_run,
    open_run,
)
from evolq_jax.experiment.setup import Setup, check_search, load_model
from evolq_jax.experiment.watch import Silent, Watcher
from evolq_jax.precision import matmul_precision
from evolq_jax.search.blockwise import search
from evolq_jax.search.budget import candidate_images
from evolq_jax.search.records import Generation, Position, SearchResult


def run_search(
    config: Experiment, run_dir: str | Path | None = None, watcher: Watcher | None = None
) -> dict[str, Any]:
    """Calibrates, searches and evaluates; a search that was killed goes on where it was last saved.

    What is continued ends with the result, bit for bit, that it would have had, on the same hardware.

    Args:
      config: the experiment.
      run_dir: where to write: a new directory, or one with an unfinished search of the same config, which
        is then continued. None: the next free `runs/NAME-NNN`.
      watcher: told how it goes on.

    Returns:
      The content of `result.json`, with the run's path under `run_dir`.

    Raises:
      UserError: something in the config, the weights, the images or the run directory is wrong.
      Preempted: SIGTERM came (in the main thread); what there was to save is saved.
    """
    watcher, clock = watcher or Silent(), Clock()
    with (
        matmul_precision(config.precision),
        continued_run(run_dir, config, SEARCH) as run,
        preemptible(f"go on with: evolq search {run.path} --resume") as preemption,
    ):
        setup = load_model(config)
        check_search(setup)
        setup = fit_memory(setup, count_calibration(setup, for_search=True))
        count_evaluation(setup)
        evaluation = load_evaluation(setup, watcher.stage("decoding evaluation images"))
        calibrated = begin(SEARCH, run, setup, evaluation, clock, watcher)
        with preemption.deferred(), out_of_memory("--search.population-chunk", "--search.image-chunk"):
            found = _search(calibrated, run, clock, preemption, watcher)
        with out_of_memory("--evaluation-batch"):
            result = score_run(run, calibrated, found, evaluation, watcher)
        result |= {
            "evaluations": found.evaluations,
            "calibration_fitness_noise": found.noise,
            "budget": config.search.budget,
            "moves": {"kept": found.kept, "visits": found.visits},
            "seconds": round(clock.seconds(), 2),
        }
        result = end_run(run, result)
        end(SEARCH, run)
    return result


def run_calibrate(
    config: Experiment, run_dir: str | Path | None = None, watcher: Watcher | None = None
) -> dict[str, Any]:
    """Calibrates and writes the first scales; returns a summary with the run's path.

    Raises:
      UserError: something in the config, the weights, the images or the run directory is wrong.
    """
    with matmul_precision(config.precision), new_run(run_dir, config) as run:
        setup = load_model(config)
        count_calibration(setup, for_search=False)
        calibrated = calibrate(setup, watcher or Silent(), for_search=False)
        write_calibrated(run, calibrated)
    return {
        "model": setup.model.name,
        "scheme": config.quant.scheme,
        "sites": len(setup.specs),
        "scales": sum(int(qparams.scale.size) for qparams in calibrated.scales.values()),
        "num_calibration_images": len(calibrated.images.pixels),
        "seconds": round(calibrated.seconds, 2),
        "run_dir": str(run.path),
    }


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
            calibrated = calibrate(setup, watcher, for_search=False)
            params, networks = calibrated.params, {"init": calibrated.scales}
        else:
            run = open_run(target)
            setup = load_model(run.config())
            params, networks = read_params(run, setup), read_networks(run, setup)
            check_fingerprints(run, {"weights": weights_fingerprint(setup.model.params)})
            count_evaluation(setup)
            evaluation = load_evaluation(setup, watcher.stage("decoding evaluation images"))
            check_fingerprints(run, {"evaluation images": fingerprint(evaluation)})
        result = score_networks(setup, params, networks, evaluation, watcher)
    return result | describe(setup, len(evaluation.names))


def _search(
    calibrated: Calibrated, run: RunDirectory, clock: Clock, preemption: Preemption, watcher: Watcher
) -> SearchResult:
    setup, config, scales = calibrated.setup, calibrated.setup.config, calibrated.scales
    features = teacher_features(calibrated, watcher) if config.search.has_features else None
    layout = config.search.layout(setup.mesh, len(calibrated.images.pixels))
    teacher, tokens = teacher_logits(calibrated, watcher), first_tokens(calibrated, layout)
    total, budget, key = num_total(setup), config.search.budget, jax.random.key(config.seed)
    with open_checkpoints(run.path, config.checkpoint, SEARCH.name) as checkpoints:
        first = Position.first(setup.model.parts, scales)
        saved = checkpoints.latest(first) or Saved(first, 0, clock.earlier)
        clock.earlier, lines = saved.seconds, saved.log_lines
        proposal = None if saved.position.visits else output_start(calibrated, watcher, preemption.check)
        milestones = Milestones(run, config.milestones, budget_of_search(setup, len(teacher)))
        milestones.offer(*_standing(setup, saved.position), saved.position.scales)
        with run.open_log(lines) as append:

            def on_generation(record: Generation) -> None:
                nonlocal lines
                append(record._asdict())
                lines += 1
                done, spent = record.evaluations, record.candidate_images
                watcher.generation(record, max(done, round(done * budget / spent)) if budget else total)
                preemption.check()

            def on_visit(position: Position) -> None:
                milestones.offer(*_standing(setup, position), position.scales)
                checkpoints.offer(Saved(position, lines, clock.seconds()))

            return search(
                config.search,
                setup.model.parts,
                setup.specs,
                calibrated.params,
                scales,
                tokens,
                teacher,
                key,
                on_generation,
                on_visit,
                saved.position,
                features,
                setup.mesh,
                proposal,
            )


def _standing(setup: Setup, position: Position) -> tuple[float, float]:
    """What a search has spent, and the fitness it has."""
    return candidate_images(setup.model.parts, position.block_images), float(position.fitness)
