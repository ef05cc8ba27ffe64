import json
import shutil
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from evolq_jax.config.experiment import BrecqConfig, Experiment
from evolq_jax.config.load import load_config
from evolq_jax.data import load_images
from evolq_jax.errors import UserError
from evolq_jax.models.registry import get_entry
from evolq_jax.pipeline.watcher import Standing
from evolq_jax.runs.directory import open_run
from evolq_jax.runs.results.files import read_result
from evolq_jax.search.state import Generation
from evolq_jax.verbs.calibrate import run_calibrate
from evolq_jax.verbs.evaluate import run_evaluate
from evolq_jax.verbs.search.plan import plan_search
from evolq_jax.verbs.search.run import run_search
from tests.small_run import BATCH, BLOCKS, small_config, write_weights
from tests.verbs.conftest import Finished

SCORES = ["top1", "top5", "agreement", "kl", "info_nce"]
FILES = ["config.json", "init_scales.safetensors", "log.jsonl", "result.json", "scales.safetensors"]


def with_evaluation(config: Experiment, source: Path | str, num: int | None = None) -> Experiment:
    return replace(config, data=replace(config.data, evaluation=str(source), num_evaluation=num))


@pytest.fixture
def unlabelled(tmp_path: Path) -> Path:
    images = load_images("digits:test", get_entry("vit_digits").preprocessing, num=20, seed=1)
    path = tmp_path / "unlabelled.npz"
    np.savez(path, image=images.pixels)
    return path


def test_a_run_holds_everything(finished: Finished) -> None:
    assert sorted(file.name for file in finished.path.iterdir()) == FILES
    assert read_result(finished.path) == finished.result
    assert finished.result.run_dir == finished.path
    result = json.loads((finished.path / "result.json").read_text())
    assert result["kind"] == next(iter(result.values())) == "search"
    assert set(result) == {field.name for field in fields(finished.result)} - {"run_dir"}
    for name in ("float", "init", "final"):
        assert list(result[name]) == SCORES
        assert all(isinstance(value, float) for value in result[name].values())
    for name in SCORES[:-1]:
        assert list(result["delta"][name]) == ["mean", "low", "high"]
        assert result["delta"][name]["mean"] == pytest.approx(result["final"][name] - result["init"][name])
    assert (result["float"]["kl"], result["float"]["agreement"]) == (0.0, 1.0)
    assert (result["num_calibration_images"], result["num_evaluation_images"]) == (2 * BATCH, 3 * BATCH)
    assert result["setting"]["seed"] == finished.config.seed
    assert result["seconds"] >= result["seconds_search"] > 0
    assert {"evolq_jax", "jax", "numpy"} <= set(result["provenance"]["versions"])
    assert result["provenance"]["device"]
    network = json.loads((finished.path / "config.json").read_text())["network"]
    assert result["setting"]["architecture"].items() <= network["architecture"].items()
    assert result["setting"]["architecture"]["num_heads"] == 4
    assert network["architecture"]["gelu_form"] == "erf"  # no usual option is left out there
    assert network["preprocessing"] == result["setting"]["preprocessing"]
    assert network["preprocessing"]["mean"] == [0.5]


def test_the_log_has_every_generation(finished: Finished) -> None:
    search = finished.config.search
    lines = [json.loads(line) for line in (finished.path / "log.jsonl").read_text().splitlines()]
    places = [(line["pass_number"], line["block"], line["generation"]) for line in lines]
    assert places == [(p, b, 0) for p in range(search.passes) for b in reversed(range(BLOCKS))]
    assert all(list(line) == list(Generation._fields) for line in lines)
    assert lines[-1]["evaluations"] == finished.result.evaluations
    assert lines[-1]["candidate_images"] == finished.result.budget_spent
    best = [line["best_fitness"] for line in lines]
    assert best == sorted(best, reverse=True)
    fitness = finished.result.calibration_fitness
    assert fitness.final == best[-1] <= fitness.init


def test_the_plan_counted_right(finished: Finished) -> None:
    plan = plan_search(finished.config)
    assert plan.evaluations == finished.result.evaluations == 2 * BLOCKS + 1
    assert plan.calibration_images == finished.result.num_calibration_images
    assert plan.evaluation_images == finished.result.num_evaluation_images


def test_evaluating_a_run_gives_its_numbers_again(finished: Finished) -> None:
    again = run_evaluate(finished.path)
    for name in ("float", "init", "final", "delta", "setting", "num_evaluation_images"):
        assert getattr(again, name) == getattr(finished.result, name)


def test_the_same_seed_gives_the_same_run(finished: Finished, tmp_path: Path) -> None:
    again = run_search(finished.config, tmp_path / "again")
    for name in ("scales.safetensors", "init_scales.safetensors"):
        assert (tmp_path / "again" / name).read_bytes() == (finished.path / name).read_bytes()
    for name in ("float", "init", "final", "delta", "calibration_fitness", "provenance"):
        assert getattr(again, name) == getattr(finished.result, name)


def test_another_seed_gives_another_run(finished: Finished, tmp_path: Path) -> None:
    other = run_search(replace(finished.config, seed=1), tmp_path / "other")
    for name in ("scales.safetensors", "init_scales.safetensors"):
        assert (tmp_path / "other" / name).read_bytes() != (finished.path / name).read_bytes()
    assert other.final != finished.result.final
    assert other.float == finished.result.float  # on the same evaluation images


def test_the_search_alone_depends_on_the_seed(weights: Path, tmp_path: Path) -> None:
    """With all calibration images in use, seeds share the init and differ in what they find."""
    images = load_images("digits:train", get_entry("vit_digits").preprocessing, num=2 * BATCH)
    np.savez(tmp_path / "few.npz", image=images.pixels)
    config = small_config(weights)
    config = replace(
        config, data=replace(config.data, calibration=str(tmp_path / "few.npz"), num_calibration=None)
    )
    for seed in (0, 1):
        run_search(replace(config, seed=seed), tmp_path / str(seed))
    init, final = (
        [(tmp_path / seed / name).read_bytes() for seed in "01"]
        for name in ("init_scales.safetensors", "scales.safetensors")
    )
    assert init[0] == init[1]
    assert final[0] != final[1]


def test_the_evaluation_set_does_not_touch_the_qparams(
    finished: Finished, unlabelled: Path, tmp_path: Path
) -> None:
    other = run_search(with_evaluation(finished.config, unlabelled), tmp_path / "other")
    for name in ("scales.safetensors", "init_scales.safetensors"):
        assert (tmp_path / "other" / name).read_bytes() == (finished.path / name).read_bytes()
    assert other.calibration_fitness == finished.result.calibration_fitness
    assert other.final != finished.result.final


def test_accuracies_are_null_without_labels(finished: Finished, unlabelled: Path, tmp_path: Path) -> None:
    run_search(with_evaluation(finished.config, unlabelled), tmp_path / "run")
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    for name in ("float", "init", "final"):
        assert [score for score in SCORES if result[name][score] is None] == ["top1", "top5"]
    assert result["delta"]["top1"] is None
    assert result["delta"]["kl"]["low"] <= result["delta"]["kl"]["high"]


def test_a_calibrated_run_can_be_evaluated(finished: Finished, tmp_path: Path) -> None:
    summary = run_calibrate(finished.config, tmp_path / "run")
    assert sorted(file.name for file in (tmp_path / "run").iterdir()) == FILES[:2]
    arrays = open_run(tmp_path / "run").read_arrays("init_scales.safetensors")
    assert summary.scales == sum(leaf.size for name, leaf in arrays.items() if name.endswith(".scale"))
    from_run, from_config = run_evaluate(tmp_path / "run"), run_evaluate(finished.config)
    assert from_run == from_config
    assert from_run.final is None
    assert from_run.init == finished.result.init


def test_a_run_keeps_the_weights_that_calibration_changed(weights: Path, tmp_path: Path) -> None:
    config = small_config(weights)
    config = replace(
        config, calibration=replace(config.calibration, chain=("ranges", "ridge", "gptq", "bias"))
    )
    result = run_search(config, tmp_path / "run")
    again = run_evaluate(tmp_path / "run")
    for name in ("float", "init", "final", "delta"):
        assert getattr(again, name) == getattr(result, name)
    plain = run_evaluate(small_config(weights))
    assert plain.init.kl != again.init.kl
    (tmp_path / "run" / "params.safetensors").write_bytes(b"no")
    with pytest.raises(UserError, match=r"no readable arrays in '.*params\.safetensors'"):
        run_evaluate(tmp_path / "run")
    (tmp_path / "run" / "params.safetensors").unlink()
    with pytest.raises(UserError, match=r"lacks params\.safetensors"):
        run_evaluate(tmp_path / "run")


def test_a_search_moves_scales_under_the_integers_that_calibration_decided(
    weights: Path, tmp_path: Path
) -> None:
    config = small_config(weights)
    brecq = BrecqConfig(steps=2, batch_size=4)
    chain = replace(config.calibration, chain=("ranges", "brecq"), brecq=brecq)
    result = run_search(replace(config, calibration=chain), tmp_path / "run")
    again, run = run_evaluate(tmp_path / "run"), open_run(tmp_path / "run")
    for name in ("float", "init", "final", "delta"):
        assert getattr(again, name) == getattr(result, name)
    arrays = run.read_arrays("params.safetensors")
    integers = arrays["blocks/attn/qkv/weight"]
    assert set(np.unique(integers)) == set(range(2**config.quant.weight_bits))
    assert arrays["blocks/attn/qkv/bias"].shape == integers.shape[::2]


def copy_run(finished: Finished, to: Path, config: Experiment) -> Path:
    from evolq_jax.runs.config_json import to_json

    shutil.copytree(finished.path, to)
    (to / "config.json").write_text(to_json(config))
    return to


def other_images(config: Experiment, folder: Path) -> Experiment:
    del folder
    return with_evaluation(config, "digits:train", 3 * BATCH)


def other_weights(config: Experiment, folder: Path) -> Experiment:
    path = write_weights(folder / "other.safetensors", changes={"head/bias": np.ones(10, np.float32)})
    return replace(config, model=replace(config.model, weights=str(path)))


@pytest.mark.parametrize(
    ("change", "message"),
    [(other_images, "the evaluation images of run"), (other_weights, "the weights of run")],
)
def test_other_weights_or_images_are_not_taken_for_the_run_s(
    finished: Finished, tmp_path: Path, change: Callable[[Experiment, Path], Experiment], message: str
) -> None:
    run = copy_run(finished, tmp_path / "run", change(finished.config, tmp_path))
    with pytest.raises(UserError, match=message):
        run_evaluate(run)


def test_a_run_is_not_scored_after_its_preprocessing_has_changed(finished: Finished, tmp_path: Path) -> None:
    run = copy_run(finished, tmp_path / "run", finished.config)
    began = json.loads((finished.path / "config.json").read_text())
    began["network"]["preprocessing"]["mean"] = [0.4]
    (run / "config.json").write_text(json.dumps(began))
    with pytest.raises(UserError, match=r"has preprocessing\.mean \[0\.4\], and now it is \[0\.5\]"):
        run_evaluate(run)


def test_scales_of_another_setting_are_not_taken(finished: Finished, tmp_path: Path) -> None:
    quant = replace(finished.config.quant, scheme="fully_quantized")
    run = copy_run(finished, tmp_path / "run", replace(finished.config, quant=quant))
    with pytest.raises(
        UserError, match=r"run/init_scales\.safetensors' do not fit the run's config: .*is missing"
    ):
        run_evaluate(run)


def test_an_unfinished_run_has_no_result(finished: Finished, tmp_path: Path) -> None:
    run = copy_run(finished, tmp_path / "run", finished.config)
    (run / "result.json").unlink()
    with pytest.raises(UserError, match=r"has no result\.json: it has not finished"):
        read_result(run)
    (run / "result.json").write_text("{")
    with pytest.raises(UserError, match=r"result\.json': not "):
        read_result(run)


def test_the_watcher_hears_of_every_stage_and_changes_nothing(finished: Finished, tmp_path: Path) -> None:
    class Ear:
        def __init__(self) -> None:
            self.stages: dict[str, list[tuple[int, int]]] = {}
            self.standings: list[Standing] = []

        def stage(self, name: str) -> Callable[[int, int], None]:
            return lambda done, total: self.stages.setdefault(name, []).append((done, total))

        def standing(self, standing: Standing) -> None:
            self.standings.append(standing)

    ear = Ear()
    run_search(finished.config, tmp_path / "run", ear)
    assert (tmp_path / "run" / "scales.safetensors").read_bytes() == (
        finished.path / "scales.safetensors"
    ).read_bytes()
    ends = {name: calls[-1] for name, calls in ear.stages.items()}
    assert ends.keys() == {
        "calibrating (ranges)",
        "computing the teacher",
        "evaluating float",
        "evaluating init",
        "evaluating final",
    }
    assert all(done == total for done, total in ends.values())
    first, end = ear.standings[0], ear.standings[-1]
    assert first.init is None  # it is scored in the first visit
    assert all(one.done <= one.total for one in ear.standings)
    assert end.done == end.total == finished.result.budget_spent
    moves = finished.result.moves
    assert end.moves == f"{moves.kept} of {moves.visits} moves kept"
    fitness = finished.result.calibration_fitness
    assert (end.init, end.best) == (fitness.init, fitness.final)


CONFIG_WITH_FITNESS = """\
from dataclasses import fields, replace
from pathlib import Path
import jax.numpy as jnp
from tests.small_run import small_config

def worst(student, teacher):
    return jnp.abs(student - teacher).max() + missing

missing = 0.0
config = small_config(Path(r"{weights}"))
search = replace(config.search, fitness="kl + 0.1*worst", fitness_functions=(worst,), passes=1)
config = replace(config, search=search)
"""


def test_a_fitness_of_a_config_file_runs_and_is_not_reloaded_silently(weights: Path, tmp_path: Path) -> None:
    path, text = tmp_path / "own.py", CONFIG_WITH_FITNESS.format(weights=weights)
    path.write_text(text)
    result = run_search(load_config(path), tmp_path / "run")
    assert result.calibration_fitness.final <= result.calibration_fitness.init
    assert run_evaluate(tmp_path / "run").final == result.final  # needs no fitness
    with pytest.raises(UserError, match="'worst' is no fitness term that evolq_jax brings along"):
        plan_search(open_run(tmp_path / "run").config())
    path.write_text(text.replace("+ missing", "+ absent"))
    with pytest.raises(UserError, match="'worst' fails on logits of shape"):
        plan_search(load_config(path))
