import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from orbax.checkpoint import v1 as ocp

from evolq_jax.config import plugins
from evolq_jax.config.experiment import CheckpointConfig, Experiment
from evolq_jax.config.plugins import Plugin
from evolq_jax.errors import UserError
from evolq_jax.interrupt import going_on
from evolq_jax.pipeline.watcher import Standing
from evolq_jax.runs.lock import locked
from evolq_jax.runs.preemption import Preempted, preemptible
from evolq_jax.runs.results.files import read_result
from evolq_jax.runs.results.networks import SearchResult
from evolq_jax.runs.unfinished import difference
from evolq_jax.typing import Progress, no_progress
from evolq_jax.verbs.search.run import ensure_search, resume_search, run_search
from tests.small_run import BLOCKS, write_weights
from tests.verbs.conftest import Finished

OFTEN = CheckpointConfig(every_seconds=0.0)
NEVER = CheckpointConfig(every_seconds=1e9)


class Interrupting:
    """Does something in a stage or after a number of generations."""

    def __init__(self, what: Callable[[], Any], when: int | str) -> None:
        self.what, self.when, self.stages, self.generations = what, when, list[str](), 0

    def stage(self, name: str) -> Progress:
        self.stages.append(name)
        if name == self.when:
            self.what()
        return no_progress

    def standing(self, standing: Standing) -> None:
        self.generations += standing.place != "search"  # the last one tells of the end
        if self.generations == self.when:
            self.what()


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def interrupt(config: Experiment, path: Path, when: int | str, what: Callable[[], Any] = terminate) -> str:
    """A search that is stopped; the message."""
    with pytest.raises((Preempted, UserError)) as stopped:
        run_search(config, path, Interrupting(what, when))
    return str(stopped.value)


def timeless(result: SearchResult) -> SearchResult:
    return replace(result, run_dir=Path(), seconds=0.0, seconds_calibration=0.0, seconds_search=0.0)


def check_equal(path: Path, result: SearchResult, finished: Finished) -> None:
    """The same files as the run that was not interrupted, but for times."""
    names = sorted(file.name for file in finished.path.iterdir())
    assert sorted(file.name for file in path.iterdir()) == names
    for name in ("scales.safetensors", "init_scales.safetensors"):
        assert (path / name).read_bytes() == (finished.path / name).read_bytes()
    logs = [(folder / "log.jsonl").read_text().splitlines() for folder in (path, finished.path)]
    here, there = ([json.loads(line) | {"seconds": 0} for line in log] for log in logs)
    assert here == there
    assert timeless(result) == timeless(finished.result)


@pytest.fixture(scope="module")
def stopped(finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of `finished`, stopped in its second pass; not to be changed."""
    path = tmp_path_factory.mktemp("stopped") / "run"
    message = interrupt(replace(finished.config, checkpoint=NEVER), path, BLOCKS + 2)
    assert message == f"stopped by SIGTERM; go on with: evolq search {path} --resume"
    return path


@pytest.fixture
def copied(stopped: Path, tmp_path: Path) -> Path:
    return shutil.copytree(stopped, tmp_path / "run")


def test_sigterm_saves_and_the_run_goes_on(finished: Finished, copied: Path) -> None:
    assert [file.name for file in (copied / "checkpoints").iterdir()] == [str(BLOCKS + 1)]
    before = json.loads((copied / "search.json").read_text())
    watcher = Interrupting(lambda: None, 0)
    result = resume_search(copied, watcher)
    assert watcher.generations == BLOCKS - 1
    assert "calibrating (ranges)" not in watcher.stages
    assert result.seconds_calibration == round(before["seconds_calibration"], 2)
    assert result.seconds > before["seconds"]
    assert read_result(copied) == result
    (copied / "config.json").write_bytes((finished.path / "config.json").read_bytes())  # but for `checkpoint`
    check_equal(copied, result, finished)


def test_it_can_be_stopped_anywhere(finished: Finished, tmp_path: Path) -> None:
    """In the stages before and after the search, and in the search, one attempt after the other."""
    path = tmp_path / "a" / "run"
    for when in ("calibrating (ranges)", "computing the teacher", 3, 2, "evaluating final"):
        assert "go on with" in interrupt(finished.config, path, when)
        assert not (path / ".lock").exists()
    result = ensure_search(finished.config, path)
    check_equal(path, result, finished)
    assert ensure_search(finished.config, path) == result


def fill_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """The third checkpoint finds no room."""
    save = ocp.training.Checkpointer.save_async

    def full(self: Any, step: int, *args: Any, **kwargs: Any) -> Any:
        if step == 3:
            raise OSError(28, "No space left on device")
        return save(self, step, *args, **kwargs)

    monkeypatch.setattr(ocp.training.Checkpointer, "save_async", full)


def test_a_failed_checkpoint_names_plugins(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without them the run would not go on."""
    plugin = Plugin(str(tmp_path / "my plug.py"), "0" * 64)
    monkeypatch.setattr(plugins, "_loaded", {plugin.sha256: plugin})
    fill_disk(monkeypatch)
    with pytest.raises(UserError) as raised:
        run_search(replace(finished.config, checkpoint=OFTEN, plugins=(plugin,)), tmp_path / "run")
    assert str(raised.value).endswith(f"{tmp_path}/run --resume --plugin '{plugin.path}'")


def test_a_full_disk_leaves_the_last_checkpoint(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "my run"
    fill_disk(monkeypatch)
    with pytest.raises(UserError) as raised:
        run_search(replace(finished.config, checkpoint=OFTEN), path)
    assert str(raised.value) == (
        f"cannot write a checkpoint in '{path}/checkpoints' (No space left on device); the last whole one is "
        f"kept: mend it; go on with: evolq search '{path}' --resume"
    )
    monkeypatch.undo()
    assert sorted(file.name for file in (path / "checkpoints").iterdir()) == ["1", "2"]
    watcher = Interrupting(lambda: None, 0)
    result = run_search(finished.config, path, watcher)
    assert watcher.generations == 2 * BLOCKS - 2
    (path / "config.json").write_bytes((finished.path / "config.json").read_bytes())  # but for `checkpoint`
    check_equal(path, result, finished)


def test_only_the_last_few_are_kept(finished: Finished, tmp_path: Path) -> None:
    config = replace(finished.config, checkpoint=CheckpointConfig(every_seconds=0.0, keep=3))
    interrupt(config, tmp_path / "run", 6)
    assert sorted(file.name for file in (tmp_path / "run" / "checkpoints").iterdir()) == ["3", "4", "5"]


def test_another_config_does_not_continue(finished: Finished, copied: Path) -> None:
    other = replace(finished.config, search=replace(finished.config.search, epsilon=0.5))
    epsilon = finished.config.search.epsilon
    line = rf"an unfinished search of another config \(search.epsilon was {epsilon} and is 0.5\): give it"
    with pytest.raises(UserError, match=line):
        run_search(other, copied)
    with pytest.raises(UserError, match="unfinished search of another config"):
        ensure_search(other, copied)


@pytest.mark.parametrize("what", ["weights", "versions/jax", "mesh/candidate"])
def test_other_inputs_do_not_continue(finished: Finished, copied: Path, what: str) -> None:
    if what == "weights":
        weights = copied.parent / "other.safetensors"
        write_weights(weights, changes={"head/bias": np.ones(10, np.float32)})
        config = replace(finished.config, model=replace(finished.config.model, weights=str(weights)))
        text = (copied / "config.json").read_text()
        old = json.dumps(finished.config.model.weights)
        assert old in text
        (copied / "config.json").write_text(text.replace(old, json.dumps(str(weights))))
        assert difference(config, finished.config).startswith("model.weights was")
    else:
        record = json.loads((copied / "search.json").read_text())
        group, name = what.split("/")
        record["provenance"][group][name] = {"versions": "0.0", "mesh": 7}[group]
        (copied / "search.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match=rf"the search in .* cannot be continued, .* changed: {what};"):
        resume_search(copied)


@pytest.mark.parametrize("text", ["{", '{"depends_on": {}, "seconds_calibration": 1.0, "seconds": 2.0}'])
def test_a_record_that_cannot_be_read_is_named(copied: Path, text: str) -> None:
    """It is damaged, or of an older version."""
    (copied / "search.json").write_text(text)
    with pytest.raises(UserError, match=r"search\.json'.*; start anew") as raised:
        resume_search(copied)
    assert "\n" not in str(raised.value)


def test_a_damaged_checkpoint_is_named(finished: Finished, copied: Path) -> None:
    state = copied / "checkpoints" / str(BLOCKS + 1)
    for file in [*state.rglob("*")]:
        if file.is_file():
            file.write_bytes(b"")
    with pytest.raises(
        UserError, match=rf"cannot read checkpoint {BLOCKS + 1} of '.*run' \(.*take the directory"
    ):
        resume_search(copied)
    shutil.rmtree(state)  # as the message says
    assert resume_search(copied).final == finished.result.final


def test_a_finished_run_is_not_run_again(finished: Finished) -> None:
    assert ensure_search(finished.config, finished.path) == finished.result
    with pytest.raises(UserError, match=r"holds a finished search of another config: seed was 0 and is 1"):
        ensure_search(replace(finished.config, seed=1), finished.path)
    with pytest.raises(UserError, match="holds a finished search; name another with --run-dir"):
        resume_search(finished.path)


def test_another_verb_s_result_is_no_search_s(finished: Finished, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((finished.path / "config.json").read_bytes())
    (tmp_path / "result.json").write_text(json.dumps({"optimizer": "adam"}))
    with pytest.raises(UserError, match="another verb's result"):
        ensure_search(finished.config, tmp_path)


def test_the_second_process_is_refused(finished: Finished, copied: Path) -> None:
    with locked(copied), pytest.raises(UserError, match="another process is at work in"):
        resume_search(copied)
    program = "import sys, time; from pathlib import Path; from evolq_jax.runs.lock import locked\n"
    program += "with locked(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    command = [sys.executable, "-c", program, str(copied)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[3])}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(UserError, match="another process is at work in"):
            run_search(finished.config, copied)
        other.kill()
    assert (copied / ".lock").exists()  # it was killed
    with locked(copied):
        pass
    assert not (copied / ".lock").exists()


def test_sigterm_waits_where_it_is_deferred() -> None:
    order: list[str] = []

    def work() -> None:
        with going_on("go on"), preemptible() as preemption:
            with preemption.deferred():
                terminate()
                order.append("in peace")
            order.append("too far")

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Preempted, match="stopped by SIGTERM; go on"):
        work()
    assert order == ["in peace"]
    assert signal.getsignal(signal.SIGTERM) == before
