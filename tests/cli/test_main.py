import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evolq_jax import __version__
from evolq_jax.cli import main as cli
from evolq_jax.cli.override import override
from evolq_jax.cli.progress import LineWatcher
from evolq_jax.config.experiment import Experiment, QuantConfig
from evolq_jax.config.presets import faithful
from evolq_jax.pipeline.watcher import Standing
from evolq_jax.training import TrainExperiment
from evolq_jax.verbs.search.plan import SearchPlan
from evolq_jax.verbs.train import TrainingResult
from tests.sample_results import COMPARISON
from tests.small_run import BLOCKS

Evolq = Callable[..., str]
PLAN = SearchPlan(
    model="vit_digits",
    network="image size 8, width 64",
    preprocessing="no resize, crop 8, mean 0.5, std 0.5",
    scheme="matmul W3A8",
    quantized_sites=9,
    searched_sites=("a", "b"),
    searched_scales=768,
    calibration_images=20,
    evaluation_images=30,
    evaluations=1,
    network_share_per_evaluation=0.625,
    image_chunk=10,
    population_chunk=1,
    block_inputs="cached in float32",
    memory_limit="none",
    float_images_per_second=28.5,
    added_parameters=0,
    estimated_seconds=4000.0,
    estimated_memory_mib=700,
    device="cpu",
    mesh="candidate=1,data=1",
)


@pytest.fixture
def evolq(here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Evolq:
    """Runs a command, which must succeed quietly, and gives what it shows, at most 80 columns wide."""

    def run(*args: str) -> str:
        monkeypatch.setattr(sys, "argv", ["evolq", *args])
        monkeypatch.setenv("COLUMNS", "80")
        monkeypatch.setattr(cli, "make_watcher", lambda: LineWatcher(sys.stderr, every=1e9))
        with contextlib.suppress(SystemExit):  # of --help and --version; errors are seen below
            cli.main()
        shown = capsys.readouterr()
        assert shown.err == ""
        assert max(map(len, shown.out.splitlines())) <= 80
        return shown.out

    return run


def caught(monkeypatch: pytest.MonkeyPatch, function: str, result: Any) -> list[Any]:
    """Puts a recorder in the place of a command's function; gives its calls' arguments."""
    calls: list[Any] = []

    def record(*args: Any) -> Any:
        calls.append(args)
        return result

    monkeypatch.setattr(f"evolq_jax.cli.commands.{function}", record)
    return calls


@pytest.mark.parametrize("args", [("--help",), ("search", "--help")])
def test_a_reader_that_has_seen_enough_gets_no_traceback(args: tuple[str, ...]) -> None:
    command = [sys.executable, "-m", "evolq_jax", *args]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        shown = process.stderr.read()
    assert b"Traceback" not in shown
    assert b"BrokenPipe" not in shown
    assert process.returncode in (0, 1)  # argparse takes no notice by itself


def test_search_then_evaluate(evolq: Evolq, here: Path) -> None:
    shown = evolq("search", "config.py")
    run = here / "runs" / "small-001"
    result = json.loads((run / "result.json").read_text())
    assert "small: matmul W3A8 (edges W8), seed 0, 30 images" in shown
    assert f"{2 * BLOCKS + 1} evaluations in" in shown
    assert shown.endswith("everything is in runs/small-001\n")
    table = shown[: shown.index(f"{2 * BLOCKS + 1} evaluations")]
    assert f"{100 * result['final']['agreement']:.1f}" in table
    assert evolq("evaluate", "runs/small-001") == table
    assert "runs/small-002" in evolq("search", "config.py", "--data.num-evaluation", "20")


def test_a_search_that_sigterm_stops_goes_on(
    evolq: Evolq, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Terminating(LineWatcher):
        def standing(self, standing: Standing) -> None:
            if standing.place == "search: pass 1 blocks 0":
                os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(sys, "argv", ["evolq", "search", "config.py", "--run-dir", "mine"])
    monkeypatch.setattr(cli, "make_watcher", lambda: Terminating(sys.stderr, every=1e9))
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 75
    assert capsys.readouterr().err == "evolq: stopped by SIGTERM; go on with: evolq search mine --resume\n"
    assert not (here / "mine" / "result.json").exists()
    assert evolq("search", "mine", "--resume").endswith("everything is in mine\n")
    assert len((here / "mine" / "log.jsonl").read_text().splitlines()) == 2 * BLOCKS


def test_calibrate_and_evaluate(evolq: Evolq, here: Path) -> None:
    shown = evolq("calibrate", "config.py", "--run-dir", "mine")
    assert "calibrated small" in shown
    assert sorted(file.name for file in (here / "mine").iterdir()) == [
        "config.json",
        "init_scales.safetensors",
    ]
    assert evolq("evaluate", "mine") == evolq("evaluate", "config.py")


def test_a_plan_is_printed_and_nothing_is_written(evolq: Evolq, here: Path) -> None:
    before = sorted(here.rglob("*"))
    shown = evolq("search", "config.py", "--dry-run", "--search.passes", "5")
    for words in (
        "plan of small",
        "searched sites",
        "blocks/attn/qkv/weight",
        "searched scales              │ 768",
        f"evaluations                  │ {5 * BLOCKS + 1}",
        "estimated time",
        "estimated memory (MiB)",
    ):
        assert words in shown
    assert sorted(here.rglob("*")) == before


def test_a_landscape_of_a_config_and_of_a_run(evolq: Evolq, here: Path) -> None:
    small = ("--landscape.num-images", "10", "--landscape.batch-size", "10", "--landscape.points", "3")
    quick = (*small, "--landscape.losses", "kl", "error_rate", "--landscape.image-chunk", "10")
    shown = evolq("landscape", "config.py", *quick, "--landscape.directions", "2")
    assert "small: line, 10 images; mean ± deviation over lines" in shown
    for words in ("minima / unit", "corr. length", "error_rate", "everything is in runs/small-landscape-001"):
        assert words in shown
    assert (here / "runs" / "small-landscape-001" / "pictures" / "lines_kl.png").is_file()
    evolq("search", "config.py", "--search.passes", "1")
    between = ("--landscape.direction", "between", "--landscape.low", "-0.5", "--landscape.no-plots")
    shown = evolq("landscape", "runs/small-001", "--run-dir", "mine", *quick, *between)
    assert "everything is in mine" in shown
    metadata = json.loads((here / "mine" / "landscape.json").read_text())
    assert metadata["target"] == "runs/small-001"
    assert (metadata["landscape"]["direction"], metadata["landscape"]["low"]) == ("between", -0.5)


def test_a_baseline_that_sigterm_stops_goes_on_and_says_what_it_spent(
    evolq: Evolq, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Terminating(LineWatcher):
        def standing(self, standing: Standing) -> None:
            os.kill(os.getpid(), signal.SIGTERM)

    args = ["--baseline.minibatch", "10", "--baseline.budget", "130", "--baseline.optimizer", "lion"]
    monkeypatch.setattr(sys, "argv", ["evolq", "baseline", "config.py", "--run-dir", "mine", *args])
    with monkeypatch.context() as patch:
        patch.setattr(cli, "make_watcher", lambda: Terminating(sys.stderr, every=1e9))
        with pytest.raises(SystemExit) as stopped:
            cli.main()
    assert stopped.value.code == 75
    assert capsys.readouterr().err.endswith("stopped by SIGTERM; go on with: evolq baseline mine --resume\n")
    assert (here / "mine" / "baseline.json").exists()
    shown = " ".join(evolq("baseline", "mine", "--resume").split())
    # two evaluations of 20 images, and three steps of 30
    assert "3 steps of lion, 130 candidate-images of 130 in" in shown
    assert "everything is in mine" in shown
    assert "by the descent [95 %]" in shown


def test_what_a_landscape_could_not_do_is_said(evolq: Evolq, here: Path) -> None:
    np.savez(here / "few.npz", image=np.zeros((20, 8, 8, 1), np.uint8))
    small = ("--landscape.num-images", "10", "--landscape.batch-size", "10", "--landscape.points", "3")
    box = ("--landscape.direction", "uniform", "--landscape.epsilon", "9", "--landscape.directions", "1")
    source = ("--data.calibration", "few.npz", "--landscape.no-plots", "--landscape.image-chunk", "10")
    shown = " ".join(evolq("landscape", "config.py", *small, *box, *source).split())
    assert "left out, since the images have no labels: cross_entropy, error_rate" in shown
    assert "% of the moved scales were reflected at zero" in shown


def test_a_landscape_is_planned(evolq: Evolq, here: Path) -> None:
    before = sorted(here.rglob("*"))
    small = ("--landscape.num-images", "10", "--landscape.batch-size", "10")
    shown = evolq("landscape", "config.py", "--dry-run", *small, "--landscape.kind", "plane")
    for words in ("plan of a landscape", "17 × 17", "289", "estimated time", "estimated memory (MiB)"):
        assert words in shown
    assert sorted(here.rglob("*")) == before


def test_search_passes_on_what_it_was_given(evolq: Evolq, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = caught(monkeypatch, "search.plan_search", PLAN)
    changes = ("--seed", "3", "--quant.weight-bits=4", "--data.num_calibration", "None")
    evolq("search", "config.py", "--dry-run", *changes, "--quant.bias-correction", "--search.sites", "a", "b")
    (config,) = calls[0]
    assert (config.seed, config.quant.weight_bits, config.data.num_calibration) == (3, 4, None)
    assert config.quant.bias_correction
    assert config.search.sites == ("a", "b")
    assert config.search.passes == 2  # as in the file


def test_the_preset_sees_the_fields_and_the_fields_win(evolq: Evolq, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = caught(monkeypatch, "search.plan_search", PLAN)
    preset = ("search", "config.py", "--preset", "faithful", "--dry-run", "--quant.scheme", "fully_quantized")
    evolq(*preset, "--quant.weight-bits", "8")
    evolq(*preset, "--search.epsilon", "0.5")
    (eight,), (wide,) = calls
    assert (eight.search.epsilon, eight.quant.integer_layer_norm) == (1e-4, True)
    assert eight.search.teacher == "integer_layer_norm"
    assert (wide.search.epsilon, wide.search.generations) == (0.5, 3)
    assert faithful(eight) == eight


@pytest.mark.parametrize(
    ("args", "field", "value"),
    [
        (["--quant.quantize-image"], "quantize_image", True),
        (["--quant.no-integer-softmax"], "integer_softmax", False),
        (["--quant.softmax-bits", "4"], "softmax_bits", 4),
        (["--quant.edge_weight_bits", "None"], "edge_weight_bits", None),
        (["--quant.weight-observer=percentile"], "weight_observer", "percentile"),
    ],
)
def test_fields_are_typed(args: list[str], field: str, value: Any) -> None:
    assert getattr(override(Experiment(), args, "search").quant, field) == value


def test_no_fields_change_nothing() -> None:
    config = Experiment(quant=QuantConfig(weight_bits=5))
    assert override(config, [], "search") == config


def test_training_is_told_the_command(evolq: Evolq, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []

    def record(config: TrainExperiment, progress: Any, command: str) -> TrainingResult:
        calls.append((config, command))
        return TrainingResult(path=Path(config.out), top1=0.975, num_test=697)

    monkeypatch.setattr("evolq_jax.cli.commands.train.run_training", record)
    (here / "train.py").write_text(
        "from evolq_jax.training import TrainExperiment\n"
        "config = TrainExperiment('vit_digits', 'digits:train', 'digits:test', 'out.safetensors')\n"
    )
    shown = evolq("train", "train.py", "--train.epochs", "7", "--out", "my weights.safetensors")
    assert shown == "top-1 97.5 % on 697 images; wrote my weights.safetensors\n"
    ((config, command),) = calls
    assert config.train.epochs == 7
    assert command == "evolq train train.py --train.epochs 7 --out 'my weights.safetensors'"


def test_doctor(evolq: Evolq) -> None:
    shown = evolq("doctor")
    assert all(words in shown for words in ("processors", "compiled programs", "EVOLQ_COMPILE_CACHE=off"))


def test_models(evolq: Evolq) -> None:
    shown = evolq("models")
    for words in ("deit_small_distilled_patch16_224", "params", "vit_digits (weights shipped)", "86.6M"):
        assert words in shown


def test_version(evolq: Evolq) -> None:
    assert evolq("--version") == f"evolq_jax {__version__}\n"


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--help",), ("examples:", "evolq search configs/digits_w2a8.py", "list the models")),
        (
            ("search", "--help"),
            ("--dry-run", "--run-dir", "--preset", "--search.passes ", "times over all blocks"),
        ),
        (("search", "--help-all"), ("--search.passes INT", "times over all blocks", "search algorithms:")),
        (("search", "config.py", "-h"), ("--search.passes ", "weights.safetensors", "--help-all")),
        (("search", "config.py", "--help-all"), ("--search.passes INT", "(default: 2)")),
        (("search", "config.py", "--preset", "faithful", "--help-all"), ("(default: absolute)",)),
        (("landscape", "--help"), ("--landscape.points", "--landscape.kind")),
        (("evaluate", "--help"), ("a run directory or a config file", "--data.evaluation ")),
        (("predict", "--help"), ("IMAGE", "--top K", "--data.class-index")),
        (("evaluate", ".", "--help"), ("a run directory or a config file",)),
        (("calibrate", "--help"), ("--run-dir", "--calibration.chain")),
        (("compare", "--help"), ("--seeds", "--search.passes INT")),
        (("train", "--help"), ("--train.epochs 3", "--train-data STR")),
        (("models", "--help"), ("usage: evolq models",)),
    ],
)
def test_help(evolq: Evolq, args: tuple[str, ...], words: tuple[str, ...]) -> None:
    shown = evolq(*args)
    for part in words:
        assert part in shown


def test_compare_puts_fields_into_every_method(
    evolq: Evolq, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = caught(monkeypatch, "compare.run_compare", COMPARISON)
    shown = evolq("compare", "config.py", "--search.passes", "7", "--seeds", "4", "5", "--budget", "9")
    ((comparison, run_dir, _),) = calls
    assert [method.config.search.passes for method in comparison.methods] == [7]
    assert (comparison.seeds, comparison.budget, run_dir) == ((4, 5), 9, None)
    assert "12,345 candidate-images a run, 2 seeds" in shown
    assert "2/2 1/2" in shown
    assert "+0.0100 [-0.0020, +0.0300]" in shown


def test_compare_has_seeds_of_its_own_and_differences_on_purpose(
    evolq: Evolq, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (here / "config.py").read_text()
    other = 'from dataclasses import replace\nconfig = replace(config, name="other", evaluation_batch=20, '
    (here / "other.py").write_text(text + other + "quant=replace(config.quant, weight_bits=4))\n")
    calls = caught(monkeypatch, "compare.run_compare", COMPARISON)
    assert "2 seeds" in evolq("compare", "config.py", "other.py", "--vary", "quant")
    assert calls[0][0].varies == ("quant",)
    for given, words in {
        ("--seed", "3"): "every method of a comparison runs with the same seeds: set --seeds, not --seed",
        (): r"'small' and 'other' would not start equal: they differ in `quant.weight_bits` (3 and 4)",
    }.items():
        monkeypatch.setattr(sys, "argv", ["evolq", "compare", "config.py", "other.py", *given])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        assert stopped.value.code == 2
        assert words in capsys.readouterr().err
    assert len(calls) == 1
