"""What is counted in a fresh process is what happened there."""

from pathlib import Path

import pytest

from benchmarks import compilations, first_run
from benchmarks.jobs import Options, jobs
from benchmarks.watched import Watched, watch
from tests.small_run import CONFIG_FILE


def test_programs_are_counted_by_name() -> None:
    watched = Watched(programs=[("a", 1.0), ("b", 3.0), ("a", 1.5)])
    assert compilations.by_name(watched) == {"b": [3.0], "a": [1.0, 1.5]}
    assert list(compilations.by_name(watched)) == ["b", "a"]


def test_medians_are_shown() -> None:
    runs = [Watched(first_program=1.0, first_generation=2.0, total=seconds) for seconds in (3.0, 9.0, 4.0)]
    assert first_run.row("x", "first", runs)["in all s"] == 4.0


def test_without_data_the_digits_remain(tmp_path: Path) -> None:
    assert list(jobs(Options(data=tmp_path / "missing"))) == ["quickstart"]
    assert "--preset" in jobs(Options(data=tmp_path))["ViT-Tiny, faithful"]


@pytest.mark.slow
def test_a_second_run_reads_what_the_first_compiled(tmp_path: Path, weights: Path) -> None:
    config = tmp_path / "config.py"
    config.write_text(CONFIG_FILE)
    args = ["search", str(config), "--model.weights", str(weights)]
    first, second = (watch(args, tmp_path / "programs") for _ in range(2))
    assert first.read < len(first.programs) == len(second.programs)
    assert second.read >= len(second.programs) - 1  # an import computes before the cache is on
    for one in (first, second):
        assert one.first_program is not None
        assert one.first_generation is not None
        assert one.first_program < one.first_generation < one.total
