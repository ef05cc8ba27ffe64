"""A link that Python passes, through the verbs."""

from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

from evolq_jax.calibration.link import Calibration, NetworkLink, State
from evolq_jax.config.experiment import Experiment
from evolq_jax.errors import UserError
from evolq_jax.runs.directory import open_run
from evolq_jax.verbs.calibrate import run_calibrate
from evolq_jax.verbs.evaluate import run_evaluate
from evolq_jax.verbs.search.run import ensure_search, resume_search, run_search
from tests.small_run import BLOCKS, small_config
from tests.verbs.search.test_resume import interrupt, timeless


def lower(calibration: Calibration, state: State, settings: None) -> State:
    del calibration, settings
    return state._replace(params=jax.tree.map(lambda leaf: 0.9 * leaf, state.params))


LOWER = NetworkLink("lower", "makes every parameter smaller", lower, changes_params=True)


def config_with(weights: Path, *chain: str | NetworkLink) -> Experiment:
    config = small_config(weights)
    return replace(config, calibration=replace(config.calibration, chain=chain))


def test_a_link_of_python_changes_a_run_as_its_own_links_do(tmp_path: Path, weights: Path) -> None:
    run_calibrate(config_with(weights, "ranges", "bias"), tmp_path / "plain")
    run_calibrate(config_with(weights, "ranges", "bias", LOWER), tmp_path / "own")
    plain, own = (open_run(tmp_path / name).read_arrays("params.safetensors") for name in ("plain", "own"))
    for name in plain:
        np.testing.assert_allclose(own[name], 0.9 * plain[name], rtol=1e-6)
    with pytest.raises(UserError, match="'lower' is no link that evolq_jax brings along") as caught:
        run_evaluate(tmp_path / "own")
    assert "\n" not in str(caught.value)


def test_a_stopped_run_goes_on_with_the_link_and_not_without(tmp_path: Path, weights: Path) -> None:
    config = config_with(weights, "ranges", LOWER)
    whole = run_search(config, tmp_path / "whole")
    interrupt(config, tmp_path / "run", BLOCKS + 1)
    with pytest.raises(UserError, match="'lower' is no link that evolq_jax brings along"):
        resume_search(tmp_path / "run")
    assert timeless(run_search(config, tmp_path / "run")) == timeless(whole)
    assert timeless(ensure_search(config, tmp_path / "run")) == timeless(whole)
    further = run_search(replace(config, start=str(tmp_path / "run")), tmp_path / "further")
    np.testing.assert_allclose(further.calibration_fitness.init, whole.calibration_fitness.final, rtol=1e-5)
