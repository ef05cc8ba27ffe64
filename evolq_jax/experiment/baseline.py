"""The verb `baseline`: gradient descent in the search's place, all else being equal."""

import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from evolq_jax.config import Experiment
from evolq_jax.experiment.calibrated import (
    Calibrated,
    first_scales,
    first_tokens,
    teacher_logits,
    write_calibrated,
)
from evolq_jax.experiment.images import count_calibration, count_evaluation, load_evaluation
from evolq_jax.experiment.milestones import Milestones
from evolq_jax.experiment.outcome import end_run, score_run
from evolq_jax.experiment.plan import budget_of_search
from evolq_jax.experiment.run_directory import RunDirectory, new_run
from evolq_jax.experiment.setup import Setup, check_search, load_model, searched_sites
from evolq_jax.experiment.watch import Silent, Watcher
from evolq_jax.fitness import make_fitness
from evolq_jax.gradient.descend import Descent, Evaluation, descend
from evolq_jax.gradient.loss import Data, Problem
from evolq_jax.gradient.optimizers import make_optimizer
from evolq_jax.precision import matmul_precision
from evolq_jax.typing import Scales


def run_baseline(
    config: Experiment, run_dir: str | Path | None = None, watcher: Watcher | None = None
) -> dict[str, Any]:
    """Calibrates, descends and evaluates: `run_search` with gradients.

    Same scales, init, calibration images, fitness, teacher and held-out images as the search of this
    config, and by default its budget.

    Args:
      config: the experiment.
      run_dir: where to write; must not hold anything. None: the next free `runs/NAME-NNN`.
      watcher: told how it goes on.

    Returns:
      The content of `result.json`, with the run's path under `run_dir`.

    Raises:
      UserError: something in the config, the weights, the images or the run directory is wrong.
    """
    watcher, began = watcher or Silent(), time.monotonic()
    with matmul_precision(config.precision), new_run(run_dir, config) as run:
        setup = load_model(config)
        check_baseline(setup, count_calibration(setup, for_search=True))
        count_evaluation(setup)
        evaluation = load_evaluation(setup, watcher.stage("decoding evaluation images"))
        calibrated = first_scales(setup, watcher)
        write_calibrated(run, calibrated)
        budget = budget_of(setup, len(calibrated.images.pixels))
        found = _descend(calibrated, budget, run, watcher)
        result = score_run(run, calibrated, found, evaluation, watcher)
        result |= {
            "optimizer": config.baseline.optimizer,
            "steps": found.steps,
            "budget": budget,
            "seconds": round(time.monotonic() - began, 2),
        }
        return end_run(run, result)


def check_baseline(setup: Setup, num_images: int) -> None:
    """Finds out before anything is computed what would stop the descent.

    Raises:
      UserError: the sites, the fitness, the optimiser, the mini-batch or the budget are wrong.
    """
    check_search(setup)
    search, baseline = setup.config.search, setup.config.baseline
    make_fitness(search.fitness, search.temperature, search.top_k, search.fitness_functions)
    make_optimizer(baseline, 1)
    size = baseline.check_minibatch(num_images - search.num_held_out(num_images), search.batch_size)
    baseline.check_budget(budget_of(setup, num_images), size, num_images)


def budget_of(setup: Setup, num_images: int) -> int:
    """Candidate-images: the config's, or as many as the search would spend."""
    return setup.config.baseline.budget or round(budget_of_search(setup, num_images))


def _descend(calibrated: Calibrated, budget: int, run: RunDirectory, watcher: Watcher) -> Descent:
    setup, config = calibrated.setup, calibrated.setup.config
    search, (image_chunk, _) = config.search, config.search.chunks()
    problem = Problem(
        parts=setup.model.parts,
        specs=setup.specs,
        sites=searched_sites(setup),
        fitness=search.fitness,
        top_k=search.top_k,
        functions=search.fitness_functions,
        batch_size=search.batch_size,
        image_chunk=image_chunk,
        baseline=config.baseline,
    )
    teacher = teacher_logits(calibrated, watcher)
    temperature = jnp.float32(search.temperature)
    data = Data(calibrated.params, calibrated.scales, first_tokens(calibrated), teacher, temperature)
    progress = watcher.stage("descending (candidate-images)")
    milestones = Milestones(run, config.milestones, budget)
    with run.open_log() as append:

        def on_evaluation(record: Evaluation, best: Scales) -> None:
            append(record._asdict())
            milestones.offer(record.candidate_images, record.best_fitness, best)
            progress(min(record.candidate_images, budget), budget)

        return descend(problem, search, data, budget, jax.random.key(config.seed), on_evaluation)
