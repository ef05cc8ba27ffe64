"""`calibrate` by itself, and runs that start from what it has found."""

from dataclasses import replace
from pathlib import Path

import pytest

from evolq_jax.config.experiment import Experiment
from evolq_jax.errors import UserError
from evolq_jax.runs.directory import CONFIG, INIT_SCALES, PARAMS, RANGES_SCALES
from evolq_jax.verbs.calibrate import ensure_calibrated, run_calibrate
from evolq_jax.verbs.search.run import run_search
from tests.small_run import small_config


@pytest.fixture(scope="module")
def config(weights: Path) -> Experiment:
    config = small_config(weights)
    return replace(config, calibration=replace(config.calibration, chain=("ranges", "bias")))


def test_a_search_starts_from_a_calibrated_run_as_if_it_had_calibrated(
    config: Experiment, tmp_path: Path
) -> None:
    run_calibrate(config, tmp_path / "calibrated")
    assert {file.name for file in (tmp_path / "calibrated").iterdir()} == {
        CONFIG,
        PARAMS,
        RANGES_SCALES,
        INIT_SCALES,
    }
    found = run_search(replace(config, start=str(tmp_path / "calibrated")), tmp_path / "started")
    alone = run_search(config, tmp_path / "alone")
    for name in (RANGES_SCALES, INIT_SCALES, "scales.safetensors"):
        assert (tmp_path / "started" / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()
    assert (found.ranges, found.init, found.final) == (alone.ranges, alone.init, alone.final)
    assert found.ranges != found.init


def test_a_killed_calibration_begins_anew_and_a_finished_one_stays(
    config: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "calibrated"
    run_calibrate(config, path)
    found = (path / INIT_SCALES).read_bytes()
    with pytest.raises(UserError, match="holds a finished calibration; name another with --run-dir"):
        run_calibrate(config, path)
    (path / INIT_SCALES).unlink()
    with pytest.raises(
        UserError, match=r"an unfinished calibration of another config \(seed was 0 and is 1\)"
    ):
        ensure_calibrated(replace(config, seed=1), path)
    ensure_calibrated(config, path)
    assert (path / INIT_SCALES).read_bytes() == found
    monkeypatch.setattr("evolq_jax.verbs.calibrate.run_calibrate", pytest.fail)
    ensure_calibrated(config, path)
    with pytest.raises(
        UserError, match="holds the calibrated network of another config: seed was 0 and is 1"
    ):
        ensure_calibrated(replace(config, seed=1), path)
