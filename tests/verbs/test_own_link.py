"""A link that Python passes, through the verbs."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from evolq_jax.calibration.link import Calibration, NetworkLink, State
from evolq_jax.config.experiment import Experiment
from evolq_jax.errors import UserError
from evolq_jax.runs.directory import open_run
from evolq_jax.verbs.calibrate import run_calibrate
from evolq_jax.verbs.evaluate import run_evaluate
from evolq_jax.verbs.search.run import resume_search, run_search
from tests.small_run import small_config


def widen(calibration: Calibration, state: State, settings: None) -> State:
    del calibration, settings
    wider = {name: own._replace(scale=2 * own.scale) for name, own in state.qparams.items()}
    return state._replace(qparams=wider)


def config_with(weights: Path, *chain: str | NetworkLink) -> Experiment:
    config = small_config(weights)
    return replace(config, calibration=replace(config.calibration, chain=chain))


def test_a_run_with_a_link_of_python_is_made_but_not_gone_on_with(tmp_path: Path, weights: Path) -> None:
    mine = NetworkLink("widen", "widens every range", widen)
    run_calibrate(config_with(weights, "ranges"), tmp_path / "plain")
    run_search(config_with(weights, "ranges", mine), tmp_path / "own")
    plain, own = (
        open_run(tmp_path / name).read_arrays("init_scales.safetensors") for name in ("plain", "own")
    )
    for name in plain:
        factor = 2 if name.endswith(".scale") else 1
        np.testing.assert_array_equal(own[name], factor * plain[name])
    for go_on in (run_evaluate, resume_search):
        with pytest.raises(UserError, match="'widen' is no link that evolq_jax brings along"):
            go_on(tmp_path / "own")
