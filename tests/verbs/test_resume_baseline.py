import json
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from evolq_jax.config.experiment import BaselineConfig, CheckpointConfig, Experiment
from evolq_jax.errors import UserError
from evolq_jax.pipeline.watcher import Silent, Standing
from evolq_jax.runs.checkpoints import Saved, open_checkpoints
from evolq_jax.runs.preemption import Preempted
from evolq_jax.runs.results.networks import BaselineResult
from evolq_jax.typing import Progress
from evolq_jax.verbs.baseline import ensure_baseline, resume_baseline, run_baseline
from tests.killing import Killed
from tests.small_run import BATCH, small_config

NEVER = CheckpointConfig(every_seconds=1e9)
BASELINES = {
    "adam": BaselineConfig(learning_rate=0.02, minibatch=BATCH, evaluate_every=3, budget=500),
    "lbfgs": BaselineConfig(optimizer="lbfgs", evaluate_every=1, budget=8000),
    # Its state has a key in it.
    "noisy_sgd": BaselineConfig(optimizer="noisy_sgd", minibatch=BATCH, evaluate_every=4, budget=500),
}


class Terminating(Silent):
    """SIGTERM in a stage, or after a number of steps of the descent."""

    def __init__(self, when: int | str) -> None:
        self.when, self.stages, self.steps = when, list[str](), list[int]()

    def stage(self, name: str) -> Progress:
        self.stages.append(name)
        if name == self.when:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().stage(name)

    def standing(self, standing: Standing) -> None:
        assert 0 < standing.done <= standing.total
        self.steps.append(int(standing.place.removeprefix("descent: step ")))
        if self.steps[-1] == self.when:
            os.kill(os.getpid(), signal.SIGTERM)


def config_of(weights: Path, name: str) -> Experiment:
    return small_config(weights, baseline=BASELINES[name], milestones=3, checkpoint=NEVER)


def stop(config: Experiment, path: Path, when: int | str) -> None:
    with pytest.raises(Preempted, match=f"stopped by SIGTERM; go on with: evolq baseline {path} --resume"):
        ensure_baseline(config, path, Terminating(when))
    assert not (path / ".lock").exists()


def outcome(path: Path, result: BaselineResult) -> dict[str, Any]:
    """Every file and the result, but for times."""
    files = {file.name: file.read_bytes() for file in path.iterdir()}
    lines = files.pop("log.jsonl").decode().splitlines()
    del files["result.json"]
    kept = {k: v for k, v in vars(result).items() if "seconds" not in k and k != "run_dir"}
    return {"files": files, "log": [json.loads(line) | {"seconds": 0} for line in lines], "result": kept}


@pytest.mark.parametrize("name", BASELINES)
def test_a_stopped_baseline_ends_as_if_left_in_peace(weights: Path, tmp_path: Path, name: str) -> None:
    config, path = config_of(weights, name), tmp_path / "run"
    whole = run_baseline(config, tmp_path / "whole")
    assert whole.steps >= 3
    when = int(np.random.default_rng(0).integers(1, whole.steps))
    stop(config, path, when)
    assert [file.name for file in (path / "checkpoints").iterdir()] == [str(when)]
    watcher = Terminating("never")
    result = resume_baseline(path, watcher)
    assert watcher.steps == [*range(when + 1, whole.steps + 1), whole.steps]  # the end is told too
    assert "calibrating (ranges)" not in watcher.stages
    found = outcome(path, result)
    assert found == outcome(tmp_path / "whole", whole)
    assert {"milestone_1.safetensors", "milestone_2.safetensors"} <= set(found["files"])
    assert not {"baseline.json", "checkpoints"} & set(found["files"])


def test_it_can_be_stopped_anywhere_and_has_its_result_once(weights: Path, tmp_path: Path) -> None:
    config, path = config_of(weights, "adam"), tmp_path / "run"
    whole = run_baseline(config, tmp_path / "whole")
    for when in ("calibrating (ranges)", "computing the teacher", 1, 2, "evaluating final"):
        stop(config, path, when)
    other = replace(config, baseline=replace(config.baseline, learning_rate=0.5))
    line = r"an unfinished baseline of another config \(baseline.learning_rate was 0.02 and is 0.5\)"
    with pytest.raises(UserError, match=line):
        ensure_baseline(other, path)
    result = ensure_baseline(config, path)
    assert outcome(path, result) == outcome(tmp_path / "whole", whole)
    assert ensure_baseline(config, path) == result
    with pytest.raises(UserError, match="holds a finished baseline; name another with --run-dir"):
        resume_baseline(path)


class _OldState(NamedTuple):
    """Where a descent stood once."""

    theta: dict[str, Any]
    fitness: float
    step: int

    @property
    def number(self) -> int:
        return self.step


def test_a_state_of_an_older_version_is_refused_in_one_line(weights: Path, tmp_path: Path) -> None:
    config, path = config_of(weights, "adam"), tmp_path / "run"
    stop(config, path, 1)
    shutil.rmtree(path / "checkpoints")
    with open_checkpoints(path, NEVER) as checkpoints:
        old = _OldState({"blocks/attn/qkv/weight": np.zeros((3, 1, 96), np.float32)}, 0.5, 1)
        checkpoints.offer(Saved(old, 2, 1.0))
    with pytest.raises(UserError, match=r"cannot read checkpoint 1 of .* or start anew") as refused:
        resume_baseline(path)
    assert "\n" not in str(refused.value)


@pytest.mark.slow
@pytest.mark.cpu(reason="on a GPU each process chooses its kernels by their speed")
def test_a_killed_baseline_ends_as_if_left_in_peace(weights: Path, tmp_path: Path) -> None:
    config = config_of(weights, "adam")
    config = replace(
        config,
        baseline=replace(config.baseline, budget=1_500),
        checkpoint=CheckpointConfig(every_seconds=0.0),
    )
    peaceful, killed = (Killed(config, tmp_path, name, "baseline") for name in ("peaceful", "killed"))
    peaceful.finish()
    kills = killed.kill_many(2)
    assert kills.in_search + kills.in_save == 1
    killed.finish()
    assert killed.outcome() == peaceful.outcome()
