"""What studies share: finished results are found again, halves are apart, tables say what runs hold."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from evolq_jax.config.experiment import DataConfig, Experiment, ModelConfig
from evolq_jax.metrics import Interval
from evolq_jax.runs.results.networks import SearchResult
from studies.common.runs import Row, kept
from studies.common.subjects import on_halves
from studies.common.tables import changes, init_table, interval, markdown, mean, means
from tests.sample_results import DELTA, SCORES, SEARCH


def test_a_result_is_made_once(tmp_path: Path) -> None:
    made: list[Row] = []

    def make() -> Row:
        made.append({"kl": 0.5})
        return made[-1]

    assert kept(tmp_path / "new/result.json", make) == kept(tmp_path / "new/result.json", make) == {"kl": 0.5}
    assert len(made) == 1


def test_halves_are_all_images_and_drawn_once(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (10, 32, 32, 3), dtype=np.uint8)
    np.savez(tmp_path / "images.npz", image=pixels)
    data = DataConfig(str(tmp_path / "images.npz"), "elsewhere", num_evaluation=3, class_index="classes")
    config = Experiment(name="x", model=ModelConfig("vit_d128_l4_cifar10", "weights"), data=data)
    halves = on_halves(config, tmp_path / "out").data
    (tmp_path / "images.npz").unlink()
    assert on_halves(config, tmp_path / "out").data == halves
    assert (halves.class_index, halves.num_evaluation) == (None, None)
    parts = [np.load(str(file))["image"] for file in (halves.calibration, halves.evaluation)]
    np.testing.assert_array_equal(np.concatenate(parts), pixels)


def run(init: float, final: float) -> SearchResult:
    change = Interval(final - init, final - init - 0.01, final - init + 0.01)
    return replace(
        SEARCH,
        init=replace(SCORES, kl=init),
        final=replace(SCORES, kl=final),
        delta=replace(DELTA, kl=change),
    )


def test_numbers_of_searches() -> None:
    runs = [run(0.5, 0.4), run(0.7, 0.5)]
    assert mean(runs, "init", "kl") == pytest.approx(0.6)
    assert means(runs, "kl", digits=2) == "0.60 → 0.45"
    assert means(runs, "kl", digits=0, factor=100) == "60 → 45"
    assert changes(runs, "kl", digits=2) == "-0.10 [-0.11, -0.09]; -0.20 [-0.21, -0.19]"


def test_a_change_without_an_interval() -> None:
    assert interval(Interval(0.25, None, None), digits=2) == "+0.25"


def test_a_table() -> None:
    assert markdown(["a", "b"], [["1", "2"]]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"


def test_inits_are_rows_by_scheme_and_bits() -> None:
    scores = {"agreement": 0.8, "kl": 0.25, "seconds": 9.0, "name": "fast"}
    results = [
        {"scheme": "fully_quantized", "bits": "W8A8", "top1": 0.6} | scores,
        {"scheme": "matmul", "bits": "W3A8", "top1": 0.5} | scores,
        {"scheme": "matmul", "bits": "W8A8", "top1": 0.8} | scores,
        {"scheme": "matmul", "bits": "W8A8", "top1": 0.7} | scores,
    ]
    assert init_table(results).splitlines()[2:] == [
        "| matmul | W8A8 | fast | 2 | 75.0 (70.0 to 80.0) | 80.0 | 0.250 | 9 |",
        "| matmul | W3A8 | fast | 1 | 50.0 | 80.0 | 0.250 | 9 |",
        "| fully_quantized | W8A8 | fast | 1 | 60.0 | 80.0 | 0.250 | 9 |",
    ]
