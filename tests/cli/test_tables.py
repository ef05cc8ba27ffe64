import io
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from evolq_jax.cli.progress import LineWatcher, TerminalWatcher
from evolq_jax.cli.tables import (
    comparison_table,
    duration,
    fact_table,
    jaggedness_table,
    result_table,
    row_table,
)
from evolq_jax.landscape.jaggedness import Spread
from evolq_jax.pipeline.watcher import Standing
from evolq_jax.runs.results.networks import EvaluationResult
from tests.sample_results import COMPARISON, DELTA, LANDSCAPE, SCORES, SEARCH, SETTING

LAST = Standing(
    "search: pass 10 blocks 11", 60000.4, 60000.4, "kl", 0.1234567, 0.0234567, 0.02512, "7 of 120 moves kept"
)


def shown(renderable: Any) -> str:
    console = Console(file=io.StringIO(), width=80, markup=False)
    console.print(renderable)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert max(map(len, text.splitlines())) <= 80
    return text


def test_a_result_shows_every_network_and_what_changed() -> None:
    text = shown(result_table(SEARCH))
    assert "vit_tiny_w4a8: fully_quantized W4A8 (edges W8), seed 0, 1300 images" in text
    row = next(line for line in text.splitlines() if "top-1 %" in line)
    assert row.split()[2:] == ["50.0", "50.0", "50.0", "+1.0", "[-0.2,", "+3.0]"]
    assert "+0.0100 [-0.0020, +0.0300]" in next(line for line in text.splitlines() if "KL" in line)


def test_edges_are_named_where_they_differ() -> None:
    for bits in (4, None):
        result = replace(SEARCH, setting=replace(SETTING, edge_weight_bits=bits))
        assert "fully_quantized W4A8, seed" in shown(result_table(result))


def test_accuracies_without_labels_are_dashes() -> None:
    unlabelled = replace(SCORES, top1=None, top5=None)
    delta = replace(DELTA, top1=None, top5=None)
    text = shown(
        result_table(replace(SEARCH, float=unlabelled, init=unlabelled, final=unlabelled, delta=delta))
    )
    row = next(line for line in text.splitlines() if "top-1 %" in line)
    assert row.split()[2:] == ["-"] * 4
    assert "100.0" in text  # agreement needs no labels


def test_a_top_five_of_few_classes_has_no_row() -> None:
    few = replace(SCORES, top5=None)
    text = shown(result_table(replace(SEARCH, float=few, init=few, final=few)))
    assert "top-1 %" in text
    assert "top-5" not in text


def test_an_evaluated_config_has_no_final() -> None:
    text = shown(
        result_table(EvaluationResult(setting=SETTING, num_evaluation_images=9, float=SCORES, init=SCORES))
    )
    assert "final" not in text
    assert "init" in text


def test_facts_are_read_by_people() -> None:
    facts = {
        "estimated_seconds": 7200.0,
        "searched_scales": 12345,
        "float_images_per_second": 28.5,
        "searched_sites": "blocks/[0-3]/*",
    }
    text = shown(fact_table("plan", facts))
    for words in ("estimated time", "2.0 h", "12,345", "float images per second", "28.5", "blocks/[0-3]/*"):
        assert words in text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (99, "99 s"), (300, "5 min"), (5999, "100 min"), (7200, "2.0 h")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_rows_hold_eight_columns_in_a_narrow_terminal() -> None:
    row = ("deit_small_distilled_patch16_224", 304.3, 224, 16, 1024, 24, 16, "included")
    text = shown(
        row_table("models", ("name", "M params", "image", "patch", "width", "depth", "heads", "x"), [row])
    )
    assert "deit_small_distilled_patch16_224" in text
    assert "included" in text


def test_jaggedness_fits_a_narrow_terminal() -> None:
    single = replace(LANDSCAPE.jaggedness["kl"], autocorrelation_length={1: Spread(None, None, 0)})
    result = replace(LANDSCAPE, jaggedness=LANDSCAPE.jaggedness | {"kl": single})
    text = shown(jaggedness_table(result))
    row = next(line for line in text.splitlines() if line.startswith("info_nce_t0.3"))
    assert row.count("0.123 ± 0.07") == 4
    row = next(line for line in text.splitlines() if line.startswith("kl"))
    assert row.split() == ["kl", "0.5", "0.5", "0.5", "-"]


def test_a_continued_stage_counts_its_own_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    """It begins at 100 of 200; ten points in 50 seconds leave 90 for 450."""
    times = iter([0.0, 0.0, 0.0, 50.0, 50.0])
    monkeypatch.setattr("evolq_jax.cli.progress.time.monotonic", lambda: next(times))
    file = io.StringIO()
    progress = LineWatcher(file, every=0.0).stage("landscape")
    progress(100, 200)
    progress(110, 200)
    assert file.getvalue().splitlines() == ["landscape 100/200", "landscape 110/200, 8 min left"]


def follow(watcher: TerminalWatcher | LineWatcher) -> None:
    with watcher:
        watcher.stage("decoding calibration images")(1000, 1000)
        watcher.stage("never begun")
        begun = LAST._replace(done=1.0, init=None, best=None, held_out=None, moves=None)
        watcher.standing(begun._replace(place="search: pass 1 blocks 11"))
        watcher.standing(LAST)


@pytest.mark.parametrize("terminal", [True, False])
def test_bars_fit_a_narrow_terminal_and_need_none(terminal: bool) -> None:
    file = io.StringIO()
    follow(TerminalWatcher(Console(file=file, width=80, force_terminal=terminal, color_system=None)))
    last = file.getvalue().replace("\x1b[2K", "\n").replace("\x1b[1A", "").splitlines()[-4:]
    assert any("search: pass 10 blocks 11" in line and "60000/60000" in line for line in last)
    assert any(
        "kl on calibration images: init 0.1235, best 0.02346, held out 0.02512;" in line for line in last
    )
    assert max(len(line.replace("\x1b[?25h", "")) for line in last) <= 80
    assert "never begun" not in file.getvalue()


def test_lines_come_now_and_then() -> None:
    file = io.StringIO()
    follow(LineWatcher(file, every=0.0))
    assert file.getvalue().splitlines() == [
        "decoding calibration images 1000/1000",
        "search: pass 1 blocks 11; 1/60000 candidate-images",
        "search: pass 10 blocks 11; kl on calibration images: init 0.1235, best 0.02346, held out 0.02512; "
        "7 of 120 moves kept; 60000/60000 candidate-images, 0 s left",
    ]
    file = io.StringIO()
    follow(LineWatcher(file, every=100.0))
    assert file.getvalue() == ""


def test_columns_are_the_stages_that_there_are() -> None:
    stages = replace(SEARCH, ranges=SCORES, setting=replace(SETTING, chain=("ranges", "gptq"), fitness="kl"))
    text = shown(result_table(stages))
    assert text.splitlines()[2].split() == [
        "float",
        "ranges",
        "corrected",
        "searched",
        "by",
        "the",
        "search",
        "[95",
        "%]",
    ]
    assert "infoNCE" not in text
    plain = replace(SEARCH, setting=replace(SETTING, chain=("ranges",), fitness="info_nce"))
    text = shown(result_table(plain))
    assert text.splitlines()[2].split()[:3] == ["float", "ranges", "searched"]
    assert "infoNCE" in text


def test_calibration_is_shown_for_each_method_where_methods_calibrate_by_themselves() -> None:
    first = COMPARISON.methods["a_method_of_16_ch"]
    first = replace(first, kl=replace(first.kl, ranges=first.kl.init))
    compared = replace(COMPARISON, methods={"one": first, "two": first})
    names = {"calibration", "one:", "two:"}
    for varies, shown_for in (
        ((), {"calibration"}),
        (("data",), {"one:", "two:"}),
        (("quant",), {"one:", "two:"}),
    ):
        text = shown(comparison_table(replace(compared, varies=varies)))
        assert {line.split()[0] for line in text.splitlines() if line.split()} & names == shown_for
