"""Run directories that somebody has edited or damaged: one line, and nothing is followed or changed."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from evolq_jax.config.experiment import Experiment
from evolq_jax.runs.config_json import to_json
from evolq_jax.verbs.search.run import run_search
from tests.bad_input.conftest import Refuse
from tests.small_run import small_config

Edit = Callable[[Path], Any]
JSON = ("config.json", "result.json")
SCALES = ("init_scales.safetensors", "scales.safetensors")


@pytest.fixture(scope="module")
def finished(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "run"
    run_search(small_config(weights), path)
    return path


@pytest.fixture
def run(finished: Path, here: Path) -> Path:
    """A copy, to damage."""
    shutil.copytree(finished, here / "run")
    return here / "run"


def dangling(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


ANY: dict[str, Edit] = {
    "empty": lambda path: path.write_bytes(b""),
    "garbage": lambda path: path.write_bytes(bytes(range(256))),
    "cut off": lambda path: path.write_bytes(path.read_bytes()[:-20]),
    "a link to nothing": dangling,
    "a pipe": pipe,
    "a folder": folder,
}
OF_JSON: dict[str, Edit] = {
    "a list": lambda path: path.write_text("[]"),
    "deep": lambda path: path.write_text("[" * 200_000),
    "digits": lambda path: path.write_text('{"seed": ' + "9" * 6000 + "}"),
    "no number": lambda path: path.write_text('{"seed": NaN}'),
    "other keys": lambda path: path.write_text('{"a": 1}'),
}
CASES = [
    *((file, edit) for file in (*JSON, *SCALES) for edit in ANY),
    *((file, edit) for file in JSON for edit in OF_JSON),
    ("scales.safetensors", "missing"),
]
EDITS = ANY | OF_JSON | {"missing": Path.unlink}
VERBS = {
    "evaluate": ("evaluate", "run"),
    "landscape": ("landscape", "run", "--landscape.num-images", "10", "--landscape.batch-size", "10"),
    "predict": ("predict", "run", "picture.png"),
    "resume": ("search", "run", "--resume"),
}


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize(("file", "edit"), CASES)
def test_a_damaged_file(refuse_late: Refuse, run: Path, file: str, edit: str, verb: str) -> None:
    (run.parent / "picture.png").write_bytes(b"")
    EDITS[edit](run / file)
    line = refuse_late(*VERBS[verb])
    if verb != "resume" or file == "config.json":  # a finished search is not gone on with, whatever it holds
        assert file in line


def edited(run: Path, changes: dict[str, Any]) -> None:
    """Changes keys of the config, or keys of its sections."""
    path = run / "config.json"
    config = json.loads(path.read_text())
    for key, value in changes.items():
        config[key] = config[key] | value if isinstance(value, dict) else value
    path.write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"quant": {"weight_bits": 8}}, " bits, and the config says "),
        ({"model": {"name": "nosuch"}}, "unknown model 'nosuch'"),
        ({"model": {"name": "vit_digits", "weights": "/dev/zero"}}, "/dev/zero"),
        ({"plugins": [{"path": "/tmp/mine.py", "sha256": "0"}]}, "the plug-in /tmp/mine.py was loaded for"),
        ({"name": "../../outside"}, "must be a plain word"),
        ({"evaluation_batch": 0}, "evaluation_batch must be at least 1"),
        ({"precision": "float8"}, "must be one of float32, tf32, bfloat16"),
        ({"mesh": "data=1000"}, "needs 1000 devices"),
        ({"data": {"evaluation": "/dev/stdin"}}, "/dev/stdin"),
    ],
)
def test_a_config_that_was_edited(
    refuse_late: Refuse, run: Path, changes: dict[str, Any], message: str
) -> None:
    edited(run, changes)
    assert message in refuse_late("evaluate", "run")


@pytest.mark.parametrize("file", SCALES)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda arrays, key: arrays | {key: -arrays[key]}, "scales are positive"),
        (lambda arrays, key: arrays | {key: 0 * arrays[key]}, "scales are positive"),
        (lambda arrays, key: arrays | {key: np.nan * arrays[key]}, "holds NaN or infinity"),
        (lambda arrays, key: arrays | {key: np.inf * arrays[key]}, "holds NaN or infinity"),
        (lambda arrays, key: arrays | {key: arrays[key].astype(np.int32)}, "not float32"),
        (lambda arrays, key: arrays | {key: arrays[key][None]}, "has the shape"),
        (lambda arrays, key: arrays | {"more": arrays[key]}, "more is there, and no site has it"),
        (lambda arrays, key: {name: arrays[name] for name in arrays if name != key}, "is missing"),
    ],
)
def test_scales_that_were_edited(
    refuse_late: Refuse, run: Path, file: str, change: Callable[..., Any], message: str
) -> None:
    arrays = load_file(run / file)
    key = next(name for name in arrays if name.endswith("attn/qkv/weight.scale"))
    save_file({name: np.ascontiguousarray(a) for name, a in change(arrays, key).items()}, run / file)
    assert message in refuse_late("evaluate", "run")


@pytest.mark.parametrize(
    "command",
    ["baseline run --resume", "baseline config.py --run-dir run", "calibrate config.py --run-dir run"],
)
def test_a_finished_run_is_called_what_it_is(refuse_late: Refuse, run: Path, command: str) -> None:
    assert refuse_late(*command.split()) == "'run' holds a finished search; name another with --run-dir"


def test_a_run_elsewhere_is_never_written(refuse_late: Refuse, run: Path, here: Path) -> None:
    """A run's directory that is a link, or holds links, leads nowhere."""
    outside = here / "outside"
    outside.mkdir()
    (here / "link").symlink_to(outside, target_is_directory=True)
    (outside / "precious.txt").write_text("mine")
    assert "is not empty" in refuse_late("search", "config.py", "--run-dir", "link")
    assert (outside / "precious.txt").read_text() == "mine"
    assert to_json(Experiment()) != (run / "config.json").read_text()
