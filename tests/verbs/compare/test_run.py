import io
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from evolq_jax.cli.tables import comparison_table
from evolq_jax.config.comparison import Comparison, Method, join
from evolq_jax.config.experiment import BaselineConfig
from evolq_jax.errors import UserError
from evolq_jax.runs.directory import INIT_SCALES, open_run
from evolq_jax.runs.results.comparison import ComparisonResult
from evolq_jax.runs.results.files import read_result
from evolq_jax.runs.results.networks import SearchResult
from evolq_jax.verbs.compare import run as compare
from evolq_jax.verbs.compare.plan import plan_compare, shared_calibration
from evolq_jax.verbs.compare.run import run_compare
from evolq_jax.verbs.search.run import run_search
from tests.small_run import BATCH, small_config, write_weights

BUDGET = 300


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    config = small_config(write_weights(tmp_path_factory.mktemp("compare") / "weights.safetensors"))
    config = replace(config, baseline=BaselineConfig(minibatch=BATCH, evaluate_every=1))
    return Comparison(
        "small_comparison",
        (Method("greedy", config), Method("both", config, ("baseline", "search"))),
        reference="greedy",
        seeds=(0, 1),
        budget=BUDGET,
    )


@pytest.fixture(scope="module")
def finished(comparison: Comparison, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("finished") / "comparison"
    run_compare(comparison, path)
    return path


def test_methods_start_from_one_init_at_one_budget(finished: Path) -> None:
    result = read_result(finished, ComparisonResult)
    assert result.kind == json.loads((finished / "comparison.json").read_text())["kind"] == "comparison"
    greedy, both = result.methods["greedy"], result.methods["both"]
    for metric in ("kl", "agreement", "top1", "info_nce"):
        assert getattr(both, metric).init == getattr(greedy, metric).init
    # A search stops at the end of the generation that spends its budget: a candidate on twenty images.
    assert all(0.7 * BUDGET < numbers.budget_spent <= BUDGET + 25 for numbers in (greedy, both))
    assert both.kl.wins.reference is not None
    assert greedy.kl.wins.reference is None
    for name in ("quality.png", "quality.svg", "quality.pdf", "index.html"):
        assert (finished / name).is_file()


def test_methods_of_a_seed_start_from_one_calibrated_network(finished: Path) -> None:
    for seed in (0, 1):
        shared = finished / "calibrated" / f"seed-{seed}"
        assert open_run(shared).config().seed == seed
        for stage in ("greedy/seed-{}/1-search", "both/seed-{}/1-baseline"):
            run = finished / stage.format(seed)
            assert open_run(run).config().start == str(shared)
            assert (run / INIT_SCALES).read_bytes() == (shared / INIT_SCALES).read_bytes()


def test_a_shared_calibration_is_what_each_method_would_find(
    comparison: Comparison, finished: Path, tmp_path: Path
) -> None:
    method = finished / "greedy" / "seed-1" / "1-search"
    alone = run_search(replace(open_run(method).config(), start=None), tmp_path / "alone")
    together = read_result(method, SearchResult)
    assert (alone.init, alone.final, alone.budget_spent) == (
        together.init,
        together.final,
        together.budget_spent,
    )


def test_a_calibrated_network_of_another_config_is_refused(
    comparison: Comparison, finished: Path, tmp_path: Path
) -> None:
    shutil.copytree(finished / "calibrated", tmp_path / "calibrated")
    config = comparison.methods[0].config
    fewer = replace(config, data=replace(config.data, num_evaluation=2 * BATCH))
    other = replace(comparison, methods=(Method("greedy", fewer),))
    with pytest.raises(UserError, match=r"calibrated network of another config: data\.num_evaluation was 30"):
        run_compare(other, tmp_path)


def test_methods_that_differ_on_purpose_calibrate_by_themselves(comparison: Comparison) -> None:
    assert shared_calibration(comparison) is not None
    config = comparison.methods[0].config
    other = replace(config, quant=replace(config.quant, weight_bits=4))
    methods = (Method("greedy", config), Method("four", other))
    assert shared_calibration(replace(comparison, methods=methods, varies=("quant",))) is None
    limited = Method("limited", replace(config, memory="4GiB"))
    assert shared_calibration(replace(comparison, methods=(methods[0], limited))) is None


def test_a_table_shows_what_calibration_made_of_ranges(comparison: Comparison, tmp_path: Path) -> None:
    config = comparison.methods[0].config
    corrected = replace(config, calibration=replace(config.calibration, chain=("ranges", "bias")))
    result = run_compare(
        replace(comparison, methods=(Method("greedy", corrected),), seeds=(0,)), tmp_path / "comparison"
    )
    kl = result.methods["greedy"].kl
    assert kl.ranges is not None
    assert kl.ranges.mean != kl.init.mean
    assert kl.change.mean == pytest.approx(kl.final.mean - kl.init.mean)
    assert result.methods["greedy"].calibration_fitness.ranges is None
    console = Console(file=io.StringIO(), width=100)
    console.print(comparison_table(result))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    row = next(line for line in text.splitlines() if line.startswith("calibration"))
    assert row.split()[1:4] == ["KL", f"{kl.ranges.mean:.4f}", f"{kl.init.mean:.4f}"]


def test_a_run_s_directory_is_refused(comparison: Comparison, finished: Path) -> None:
    run = finished / "greedy" / "seed-0" / "1-search"
    before = sorted(file.name for file in run.iterdir())
    with pytest.raises(UserError, match="is the directory of a run: name another one"):
        run_compare(comparison, run)
    assert sorted(file.name for file in run.iterdir()) == before


@pytest.mark.parametrize(("budget", "method"), [(1, "greedy"), (40, "both")])
def test_a_budget_that_is_too_small_is_refused_before_anything_runs(
    comparison: Comparison, tmp_path: Path, budget: int, method: str
) -> None:
    with pytest.raises(UserError, match=rf"method '{method}': .*budget"):
        run_compare(replace(comparison, budget=budget), tmp_path / "comparison")
    with pytest.raises(UserError, match=rf"method '{method}': .*budget"):
        plan_compare(replace(comparison, budget=budget))
    assert not (tmp_path / "comparison").exists()


def test_a_stage_starts_where_the_one_before_ended(finished: Path) -> None:
    first, second = (finished / "both" / "seed-1" / name for name in ("1-baseline", "2-search"))
    ended, began = first / "scales.safetensors", second / "init_scales.safetensors"
    assert ended.read_bytes() == began.read_bytes()
    assert open_run(second).config().seed == 1


def test_a_trajectory_goes_from_init_to_final_within_the_budget(finished: Path) -> None:
    for method, runs in read_result(finished, ComparisonResult).trajectories.items():
        for seed, points in enumerate(runs):
            spent = [point.candidate_images for point in points]
            assert spent == sorted(spent)
            assert spent[0] == 0
            assert len(points) >= 3
            fitness = [point.calibration_fitness for point in points]
            assert fitness == sorted(fitness, reverse=True)
            last = sorted((finished / method / f"seed-{seed}").iterdir())[-1]
            result = read_result(last)
            assert isinstance(result, SearchResult)
            assert points[-1].kl == result.final.kl


def test_finished_runs_are_not_run_again(
    comparison: Comparison, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (finished / "comparison.json").read_text()
    assert plan_compare(comparison, finished).finished_runs == 4
    monkeypatch.setattr("evolq_jax.verbs.search.run.run_search", pytest.fail)
    monkeypatch.setattr("evolq_jax.verbs.baseline.run_baseline", pytest.fail)
    run_compare(comparison, finished)
    assert (finished / "comparison.json").read_text() == before


def test_runs_of_another_config_are_refused(comparison: Comparison, finished: Path) -> None:
    with pytest.raises(UserError, match=r"another config: search\.budget was 300 and is 200"):
        run_compare(replace(comparison, budget=200), finished)


def test_a_run_starts_from_finished_runs_of_the_same_network_only(
    comparison: Comparison, finished: Path, tmp_path: Path
) -> None:
    config = comparison.methods[0].config
    start = str(finished / "greedy" / "seed-0" / "1-search")
    other = replace(config, start=start, quant=replace(config.quant, weight_bits=4))
    with pytest.raises(UserError, match="has other `quant` settings"):
        compare.ensure_search(other, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seeds": ()}, "seeds must be given"),
        ({"milestones": 0}, "milestones must be at least 1"),
        ({"budget": 0}, "budget must be at least 1"),
        ({"reference": "greed"}, "did you mean 'greedy'"),
    ],
)
def test_wrong_settings_are_refused(comparison: Comparison, changes: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        replace(comparison, **changes)


def test_experiments_join_under_their_names(comparison: Comparison) -> None:
    config = comparison.methods[0].config
    joined = join([config, comparison])
    assert [method.name for method in joined.methods] == ["small", "greedy", "both"]
    assert joined.budget == BUDGET
    with pytest.raises(UserError, match="two methods are called 'small'"):
        join([config, config])
