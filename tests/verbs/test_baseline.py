import json
from dataclasses import replace
from pathlib import Path

import pytest

from evolq_jax.config.experiment import BaselineConfig
from evolq_jax.runs.directory import open_run
from evolq_jax.verbs.baseline import run_baseline
from evolq_jax.verbs.evaluate import run_evaluate
from evolq_jax.verbs.search.run import run_search
from tests.small_run import BATCH
from tests.verbs.conftest import Finished


def test_a_baseline_is_a_run_like_a_search_s(finished: Finished, tmp_path: Path) -> None:
    config = replace(finished.config, baseline=BaselineConfig(learning_rate=0.02, minibatch=BATCH))
    result = run_baseline(config, tmp_path / "run")
    path = tmp_path / "run"
    assert sorted(file.name for file in path.iterdir()) == sorted(f.name for f in finished.path.iterdir())
    assert (path / "init_scales.safetensors").read_bytes() == (
        finished.path / "init_scales.safetensors"
    ).read_bytes()
    assert result.budget == pytest.approx(finished.result.budget_spent, rel=0.05)
    assert result.budget_spent <= result.budget
    for name in ("float", "init", "provenance"):
        assert getattr(result, name) == getattr(finished.result, name)
    fitness, of_search = result.calibration_fitness, finished.result.calibration_fitness
    assert fitness.init == pytest.approx(of_search.init, rel=1e-3)
    assert fitness.final < fitness.init
    lines = [json.loads(line) for line in (path / "log.jsonl").read_text().splitlines()]
    assert lines[-1]["candidate_images"] == result.budget_spent
    assert lines[-1]["best_fitness"] == fitness.final
    again = run_evaluate(path)
    assert again.final == result.final
    moved = open_run(path).read_arrays("scales.safetensors")
    init = open_run(path).read_arrays("init_scales.safetensors")
    changed = {name for name in moved if (moved[name] != init[name]).any()}
    assert changed == {"blocks/attn/qkv/weight.scale"}  # the search's sites


def test_a_baseline_keeps_the_parameters_that_calibration_corrected(
    finished: Finished, tmp_path: Path
) -> None:
    config = replace(
        finished.config,
        calibration=replace(finished.config.calibration, chain=("ranges", "bias")),
        baseline=BaselineConfig(minibatch=BATCH, budget=12 * BATCH, evaluate_every=1),
    )
    result = run_baseline(config, tmp_path / "run")
    again = run_evaluate(tmp_path / "run")
    assert (again.init, again.final) == (result.init, result.final)


def test_features_count_in_search_and_baseline_alike(finished: Finished, tmp_path: Path) -> None:
    config = finished.config
    search = replace(config.search, passes=1, fitness=f"{config.search.fitness} + 2*features")
    config = replace(config, search=search, baseline=BaselineConfig(minibatch=BATCH, budget=110))
    results = [run(config, tmp_path / run.__name__) for run in (run_search, run_baseline)]
    first, second = (result.calibration_fitness.init for result in results)
    assert first == pytest.approx(second, rel=1e-3)
    alone = finished.result.calibration_fitness.init
    assert first > 1.01 * alone


def test_milestones_before_the_first_evaluation_have_the_start(finished: Finished, tmp_path: Path) -> None:
    """The first evaluation alone costs more than the first of twenty shares of the budget."""
    images = finished.result.num_calibration_images
    baseline = BaselineConfig(minibatch=BATCH, budget=2 * images + 6 * BATCH)
    result = run_baseline(replace(finished.config, baseline=baseline, milestones=20), tmp_path / "run")
    assert len(result.trajectory) >= 20
    first = result.trajectory[1]
    assert first.candidate_images == pytest.approx(result.budget / 20)
    assert first.candidate_images < images
    assert first.calibration_fitness == result.calibration_fitness.init
    assert first.kl == result.init.kl
