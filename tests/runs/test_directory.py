import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from evolq_jax.config.experiment import Experiment
from evolq_jax.errors import UserError
from evolq_jax.quant.qparams import SiteQParams
from evolq_jax.runs.directory import RunDirectory, new_run, open_run


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_runs_are_numbered(here: Path) -> None:
    for number in ("001", "002"):
        with new_run(None, Experiment(name="mine")) as run:
            assert run.path == Path("runs") / f"mine-{number}"
    assert names(here / "runs") == ["mine-001", "mine-001/config.json", "mine-002", "mine-002/config.json"]


def test_a_run_knows_its_config(here: Path) -> None:
    with new_run(here / "run", Experiment(seed=3)):
        pass
    assert open_run(here / "run").config() == Experiment(seed=3)


@pytest.mark.parametrize("error", [UserError, KeyboardInterrupt, RuntimeError])
def test_a_run_that_comes_to_nothing_leaves_nothing(here: Path, error: type[BaseException]) -> None:
    with pytest.raises(error), new_run("a/b/run", Experiment()):
        raise error
    assert names(here) == []


def test_a_folder_that_was_there_stays(here: Path) -> None:
    (here / "mine").mkdir()
    with pytest.raises(UserError), new_run("mine", Experiment()):
        raise UserError
    assert names(here) == ["mine"]


def test_a_run_that_has_written_something_stays(here: Path) -> None:
    def interrupted() -> None:
        with new_run("run", Experiment()) as run, run.open_log() as append:
            append({"pass_number": 0})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert names(here) == ["run", "run/config.json", "run/log.jsonl"]
    assert json.loads((here / "run" / "log.jsonl").read_text()) == {"pass_number": 0}


@pytest.mark.parametrize("holds", ["a file", "a folder with something in it"])
def test_nothing_is_written_over(here: Path, holds: str) -> None:
    other = here / "taken" if holds == "a file" else here / "taken" / "precious.txt"
    other.parent.mkdir(exist_ok=True)
    other.write_text("precious")
    with pytest.raises(UserError, match="'taken' is not empty; name another"), new_run("taken", Experiment()):
        pass
    assert other.read_text() == "precious"


def test_a_path_that_cannot_be_made_is_named(here: Path) -> None:
    (here / "file").write_text("")
    line = "cannot write 'file/run': Not a directory; name another with --run-dir"
    with pytest.raises(UserError, match=line), new_run("file/run", Experiment()):
        pass
    assert names(here) == ["file"]


def test_a_failed_write_is_one_line_and_leaves_the_old_file(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunDirectory(here)
    run.write("x.json", b"old")

    def full(self: Path, data: bytes) -> int:
        self.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(UserError, match=r"cannot write .*x\.json': No space left on device"):
        run.write("x.json", b"new")
    monkeypatch.undo()
    assert names(here) == ["x.json"]
    assert run.read("x.json") == "old"


def test_a_log_on_a_full_disk_is_one_line(here: Path) -> None:
    (here / "log.jsonl").symlink_to("/dev/full")
    line = r"cannot write .*log\.jsonl': No space left on device"
    with pytest.raises(UserError, match=line), RunDirectory(here).open_log() as append:
        append({"pass_number": 0})


def test_scales_come_back_as_they_were(here: Path) -> None:
    run = RunDirectory(here)
    scale = jnp.asarray(np.random.default_rng(0).uniform(0.1, 1.0, (2, 1, 3)), jnp.float32)
    qparams = {
        "blocks/a/weight": SiteQParams(scale, jnp.round(10 * scale)),
        "head": SiteQParams(scale[0], scale[0]),
    }
    run.write_qparams("scales.safetensors", qparams)
    back = run.read_qparams("scales.safetensors")
    assert list(back) == ["blocks/a/weight", "head"]
    for name, site_qparams in qparams.items():
        np.testing.assert_array_equal(back[name].scale, site_qparams.scale)
        np.testing.assert_array_equal(back[name].zero_point, site_qparams.zero_point)


@pytest.mark.parametrize("content", [None, b"", b"damaged"])
def test_missing_or_damaged_scales_are_named(here: Path, content: bytes | None) -> None:
    if content is not None:
        (here / "scales.safetensors").write_bytes(content)
    with pytest.raises(UserError, match=r"no readable arrays in .*scales\.safetensors"):
        RunDirectory(here).read_qparams("scales.safetensors")


def test_a_folder_without_a_config_is_no_run(here: Path) -> None:
    with pytest.raises(UserError, match=r"is no run directory: it holds no config\.json"):
        open_run(here)
    with pytest.raises(UserError, match="is no run directory"):
        open_run(here / "nowhere")
