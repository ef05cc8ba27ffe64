"""The benchmarks run, and what they count is right; how fast anything is, they say and no test asserts."""

import json
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import (
    chain_study,
    cifar_study,
    compilations,
    descent_study,
    float_forward,
    init_study,
    landscape,
    peak,
    peer_study,
    precision,
    preset_study,
    run,
    scaling,
    search_study,
    search_throughput,
)
from benchmarks.command import main
from benchmarks.entry import run_or_refuse
from benchmarks.search_throughput import Case
from benchmarks.subject import Subject
from benchmarks.timing import count_compilations, interleave
from evolq_jax.models.registry import get_entry
from evolq_jax.models.vit import ViTConfig
from evolq_jax.quant.spec import QuantConfig
from tests.tiny import PREPROCESSING, make_tiny

ROOT = Path(__file__).resolve().parent.parent


def tiny_subject(depth: int) -> Subject:
    tiny = make_tiny(depth)
    return Subject(tiny.config, tiny.parts, tiny.params, PREPROCESSING, tiny.pixels[:10], "tiny", "random")


def test_compilations_are_counted() -> None:
    double = jax.jit(lambda x: x * 2.125)
    with count_compilations() as first:
        double(jnp.ones(3)).block_until_ready()
    with count_compilations() as again:
        double(jnp.ones(3)).block_until_ready()
    assert len(first.seconds) >= 1
    assert again.seconds == []


@pytest.mark.slow
def test_a_search_compiles_the_same_at_any_depth() -> None:
    case = Case("matmul", 5, generations=1)
    rows = [compilations.row(tiny_subject(depth), case) for depth in (3, 4)]  # both keep a move
    assert rows[0]["compilations"] == rows[1]["compilations"] > 0


def test_measurements_are_taken_in_turn() -> None:
    order: list[str] = []

    def task(name: str, seconds: float) -> float:
        order.append(name)
        return seconds

    found = interleave({"a": lambda: task("a", 1.0), "b": lambda: task("b", 2.0)}, 2)
    assert order == ["a", "b", "a", "b"]
    assert found == {"a": [1.0, 1.0], "b": [2.0, 2.0]}


def test_operations_of_vit_tiny() -> None:
    config = ViTConfig(width=192, num_heads=3, mlp_width=768)
    tokens, width = 197, 192
    products = 2 * tokens * (width * 3 * width + width * width + 2 * width * 768)
    attention = 2 * 2 * tokens * tokens * width
    assert peak.block_flops(config) == products + attention
    assert peak.forward_flops(config) == pytest.approx(2.507e9, rel=1e-3)


def test_a_chunk_that_does_not_divide_leaves_images_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.float_forward.timed", lambda run: lambda: float(run().size))
    logits_of_an_image = float_forward.seconds_per_image(tiny_subject(2), 4)()
    assert logits_of_an_image == 10


def test_candidates_are_counted_without_the_start() -> None:
    subject, peak_of_machine = tiny_subject(2), 1e9
    began = time.perf_counter()
    row = search_throughput.row(subject, Case("matmul", 5, 1), lambda: 1.0, peak_of_machine, 1)
    seconds = 20 / row["candidate images/s"]  # 2 blocks, 1 child, 10 images
    assert 0 < seconds < time.perf_counter() - began
    assert row["ratio"] == pytest.approx(row["candidate images/s"], rel=0.01)
    blocks = 10 * (1 + 2 + 2 + 1)  # candidates, the pass that fills the cache, the start
    speed = blocks * peak.block_flops(subject.config) / seconds
    assert row["share of peak"] == pytest.approx(speed / peak_of_machine, rel=0.05, abs=1e-3)


def test_work_of_a_compiled_program() -> None:
    """Of one child of the ViT for the digits, whose middle block has one after it."""
    case = scaling.Case("strong", 1, "candidate=1,data=1", 1, 20)
    done, seconds = scaling.measure(scaling.load("vit_digits"), case, 5)
    config = get_entry("vit_digits").config
    head = 2 * config.width * config.num_classes
    assert done.flops == pytest.approx(20 * (2 * peak.block_flops(config) + head), rel=1e-2)
    assert not done.counts
    assert seconds is None


def test_candidates_at_lower_precision_change_their_order() -> None:
    """Rounded operands give another fitness, not a wholly other one; pairs are compared, not numbers."""
    subject = tiny_subject(2)
    sites, specs = subject.quantizers(QuantConfig("matmul", weight_bits=4))
    options = precision.Options(pairs=8, spread=0.1, images=10, emulate=True)
    at_precision = precision.fitness(subject, sites, specs, options)
    exact, coarse = (at_precision(name).reshape(-1, 2) for name in ("float32", "bfloat16"))
    assert 0 < np.abs(coarse - exact).max() < 0.5 * np.abs(exact).max()
    assert precision.changed_order(exact, exact) == 0
    assert (
        precision.changed_order(np.array([[1.0, 2.0], [4.0, 3.0]]), np.array([[2.0, 1.0], [4.0, 3.0]])) == 1
    )


def test_points_of_a_plane_are_counted() -> None:
    subject = tiny_subject(2)
    began = time.perf_counter()
    row = landscape.row(subject, landscape.Case("matmul", 5, first_block=0.5), 3, lambda: 1.0, 1)
    assert row["first block"] == 1
    seconds = 9 * 10 / row["point-images/s"]  # 3 x 3 points, 10 images
    assert 0 < seconds < time.perf_counter() - began
    assert row["ratio"] == pytest.approx(row["point-images/s"], rel=0.01)


def test_report_is_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("benchmarks.command.load", lambda options: tiny_subject(2))
    monkeypatch.setattr(sys, "argv", ["peak.py", "--quick", "--json", str(tmp_path / "report.json")])
    main("peak", {"square": lambda subject, options: [{"GFLOP/s": peak.peak_flops((64,), 1) / 1e9}]})
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["square"][0]["GFLOP/s"] > 0
    assert {"device", "cores", "jax"} <= set(report["setting"])
    assert "square" in capsys.readouterr().out


def test_a_wrong_folder_is_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["peak.py", "--calibration", str(tmp_path / "missing")])
    with pytest.raises(SystemExit) as raised:
        main("peak", run.MEASURES)
    assert raised.value.code == 2
    check_error(capsys.readouterr().err)


@pytest.mark.parametrize(
    "study",
    [chain_study, cifar_study, descent_study, init_study, peer_study, preset_study, search_study],
    ids=lambda study: study.__name__.split(".")[1],
)
def test_missing_data_is_one_line(
    study: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--data", str(tmp_path / "missing"), "--out", str(tmp_path / "out"), "--seeds", "0"]
    monkeypatch.setattr(sys, "argv", [study.__name__, *options])
    with pytest.raises(SystemExit) as raised:
        run_or_refuse(study.main)
    assert raised.value.code == 2
    check_error(capsys.readouterr().err)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def check_error(said: str) -> None:
    assert said.startswith("error: ")
    assert "missing" in said
    assert said.count("\n") == 1


def test_help_of_a_script() -> None:
    command = [sys.executable, "benchmarks/run.py", "--help"]
    environment = {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "PATH": ""}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert "--quick" in done.stdout
