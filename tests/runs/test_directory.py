import json
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save

from evolq_jax.config.experiment import Experiment
from evolq_jax.errors import UserError
from evolq_jax.quant.qparams import QParams, blank_qparams, with_bits
from evolq_jax.quant.quantizers.log2 import LOG2
from evolq_jax.quant.spec import QuantSpec
from evolq_jax.runs.directory import RunDirectory, begin_run, hold_directory, open_run
from evolq_jax.typing import SiteInfo


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@contextmanager
def new_run(path: str | Path | None, config: Experiment) -> Generator[RunDirectory, None, None]:
    """A directory as a verb begins it."""
    with hold_directory(path, config.name) as run, begin_run(run, config):
        yield run


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
    with pytest.raises(UserError, match=r"'taken' is .*; name another"), new_run("taken", Experiment()):
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


SPECS = (
    ("blocks/a/weight", QuantSpec(per_channel=True)),
    ("head", QuantSpec()),
    ("blocks/soft", QuantSpec(quantizer=LOG2)),
)
SITES = {
    "blocks/a/weight": SiteInfo((4, 3), 2, True),
    "head": SiteInfo((1, 3), None, False),
    "blocks/soft": SiteInfo((1, 2, 2), 2, False),
}
BLANK = blank_qparams(SPECS, {"blocks/a/weight": 4, "head": 8, "blocks/soft": 5}, SITES)


def some_qparams() -> QParams:
    """Of other bits than `BLANK`, block by block."""
    scale = jnp.asarray(np.random.default_rng(0).uniform(0.1, 1.0, (2, 1, 3)), jnp.float32)
    qparams = dict(BLANK)
    qparams["blocks/a/weight"] = BLANK["blocks/a/weight"]._replace(
        scale=scale, zero_point=jnp.round(10 * scale)
    )
    qparams["head"] = BLANK["head"]._replace(scale=scale[0, :, :1])
    return with_bits(qparams, {"blocks/a/weight": np.array([2, 7]), "blocks/soft": 3})


def test_scales_come_back_as_they_were(here: Path) -> None:
    run, qparams = RunDirectory(here), some_qparams()
    run.write_qparams("scales.safetensors", SPECS, qparams)
    names = {"blocks/a/weight.scale", "blocks/a/weight.zero_point", "head.scale", "head.zero_point"}
    assert set(run.read_arrays("scales.safetensors")) == names | {f"{site}.bits" for site in SITES}
    back = run.read_qparams("scales.safetensors", SPECS, BLANK)
    assert list(back) == list(BLANK)
    jax.tree.map(np.testing.assert_array_equal, back, qparams)


def test_a_file_without_bits_has_those_of_the_config(here: Path) -> None:
    run, qparams = RunDirectory(here), some_qparams()
    old = {
        f"{site}.{field}": getattr(qparams[site], field)
        for site in ("blocks/a/weight", "head")
        for field in ("scale", "zero_point")
    }
    run.write_arrays("scales.safetensors", old)
    back = run.read_qparams("scales.safetensors", SPECS, BLANK)
    for site, site_qparams in back.items():
        np.testing.assert_array_equal(site_qparams.bits, BLANK[site].bits)
        np.testing.assert_array_equal(site_qparams.scale, qparams[site].scale)


@pytest.mark.parametrize(
    ("extra", "message"),
    [(name, f"{name} is there, and no site has it") for name in ("norm.scale", "norm.bits", "head.z")],
)
def test_numbers_of_another_network_are_refused(here: Path, extra: str, message: str) -> None:
    run = RunDirectory(here)
    run.write_qparams("scales.safetensors", SPECS, some_qparams())
    arrays = run.read_arrays("scales.safetensors") | {extra: np.ones(1)}
    run.write_arrays("scales.safetensors", arrays)
    with pytest.raises(UserError, match=message):
        run.read_qparams("scales.safetensors", SPECS, BLANK)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("head.scale", -1.0, "head.scale holds -1, and scales are positive"),
        ("head.scale", 0.0, "head.scale holds 0, and scales are positive"),
        ("head.scale", np.nan, "head.scale holds NaN or infinity"),
        ("head.zero_point", np.inf, "head.zero_point holds NaN or infinity"),
        ("head.bits", 9.0, "head.bits holds 9, and bits are whole"),
        ("head.bits", 2.5, "head.bits holds 2.5, and bits are whole"),
    ],
)
def test_edited_numbers_are_refused(here: Path, key: str, value: float, message: str) -> None:
    run = RunDirectory(here)
    run.write_qparams("scales.safetensors", SPECS, some_qparams())
    arrays = run.read_arrays("scales.safetensors")
    run.write_arrays("scales.safetensors", arrays | {key: np.full_like(arrays[key], value)})
    with pytest.raises(UserError, match=message):
        run.read_qparams("scales.safetensors", SPECS, BLANK)


def test_arrays_of_other_shapes_and_types_are_refused(here: Path) -> None:
    run = RunDirectory(here)
    run.write_qparams("scales.safetensors", SPECS, some_qparams())
    arrays = run.read_arrays("scales.safetensors")
    for wrong, message in (
        (np.ones((2, 1, 4), np.float32), r"has the shape \(2, 1, 4\), not \(2, 1, 3\)"),
        (np.ones((2, 1, 3), np.int32), "holds int32, not float32"),
    ):
        run.write("scales.safetensors", save(arrays | {"blocks/a/weight.scale": wrong}))
        with pytest.raises(UserError, match=message):
            run.read_qparams("scales.safetensors", SPECS, BLANK)
    run.write("scales.safetensors", save({key: arrays[key] for key in arrays if key != "head.scale"}))
    with pytest.raises(UserError, match=r"head\.scale is missing"):
        run.read_qparams("scales.safetensors", SPECS, BLANK)


@pytest.mark.parametrize("content", [None, b"", b"damaged"])
def test_missing_or_damaged_scales_are_named(here: Path, content: bytes | None) -> None:
    if content is not None:
        (here / "scales.safetensors").write_bytes(content)
    with pytest.raises(UserError, match=r"no readable arrays in .*scales\.safetensors"):
        RunDirectory(here).read_qparams("scales.safetensors", SPECS, BLANK)


def test_a_folder_without_a_config_is_no_run(here: Path) -> None:
    with pytest.raises(UserError, match=r"is no run directory: it holds no config\.json"):
        open_run(here)
    with pytest.raises(UserError, match="is no run directory"):
        open_run(here / "nowhere")
