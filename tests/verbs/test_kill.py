from dataclasses import replace
from pathlib import Path

import pytest

from evolq_jax.config.experiment import CheckpointConfig
from tests.killing import Killed
from tests.small_run import BLOCKS, small_config

PASSES = 40


@pytest.mark.slow
@pytest.mark.cpu(reason="on a GPU each process chooses its kernels by their speed")
def test_a_search_killed_25_times_ends_as_if_left_in_peace(weights: Path, tmp_path: Path) -> None:
    config = small_config(weights, checkpoint=CheckpointConfig(every_seconds=0.0))
    config = replace(config, search=replace(config.search, passes=PASSES, holdout=0.5))
    peaceful, killed = (Killed(config, tmp_path, name) for name in ("peaceful", "killed"))
    peaceful.finish()
    kills = killed.kill_many(25)
    assert kills.in_save >= 5
    killed.finish()
    outcome = killed.outcome()
    assert outcome == peaceful.outcome()
    assert set(outcome["files"]) == {"config.json", "init_scales.safetensors", "scales.safetensors"}
    assert len(outcome["log"]) == PASSES * BLOCKS
    assert outcome["result"]["moves"]["kept"] > 1
