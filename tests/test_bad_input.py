"""What a user gets wrong ends in one line and status 2, before anything is computed, and leaves nothing."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

from evolq_jax import cli
from evolq_jax.config import Experiment
from evolq_jax.experiment import images, run
from evolq_jax.experiment.config_json import to_json
from evolq_jax.models.registry import REGISTRY, VIT, Entry
from evolq_jax.models.vit import ViTConfig
from evolq_jax.report import LineWatcher
from evolq_jax.typing import Preprocessing
from tests.small_run import write_weights

Refuse = Callable[..., str]
CONFIG = """\
from pathlib import Path
from tests.small_run import small_config
config = small_config(Path("weights.safetensors"))
"""
RGB = ViTConfig(image_size=8, patch_size=4, width=8, depth=1, num_heads=1, mlp_width=8, num_classes=3)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_weights(tmp_path_factory.mktemp("weights") / "weights.safetensors")


def listing(folder: Path) -> list[str]:
    return sorted(str(path) for path in folder.rglob("*"))


@pytest.fixture
def here(tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with `config.py` and `weights.safetensors`."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.py").write_text(CONFIG)
    (tmp_path / "weights.safetensors").symlink_to(weights)
    return tmp_path


@pytest.fixture
def refuse_late(here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Refuse:
    """Runs a command that must fail in the proper way, and gives its line without the prefix."""

    def refuse(*args: str) -> str:
        monkeypatch.setattr(sys, "argv", ["evolq", *args])
        monkeypatch.setattr(cli, "make_watcher", lambda: LineWatcher(sys.stderr, every=1e9))
        before = listing(here)
        with pytest.raises(SystemExit) as caught:
            cli.main()
        shown = capsys.readouterr()
        assert caught.value.code == 2
        assert shown.out == ""
        assert shown.err.startswith("evolq: error: ")
        assert shown.err.endswith("\n")
        assert shown.err.count("\n") == 1
        assert listing(here) == before
        return shown.err.removeprefix("evolq: error: ").strip()

    return refuse


@pytest.fixture
def refuse(refuse_late: Refuse, monkeypatch: pytest.MonkeyPatch) -> Refuse:
    """The same, of what must be found before an image is decoded or a network run."""

    def too_late(*args: object, **kwargs: object) -> NoReturn:
        pytest.fail("the mistake was not found in time")

    monkeypatch.setattr(images, "load_images", too_late)
    monkeypatch.setattr(run, "initialise", too_late)
    monkeypatch.setattr("evolq_jax.experiment.plan.compute_logits", too_late)
    return refuse_late


def npz(path: Path, count: int, channels: int = 1, labels: list[int] | None = None) -> str:
    pixels = np.zeros((count, 8, 8, channels), np.uint8)
    if labels is None:
        np.savez(path, image=pixels)
    else:
        np.savez(path, image=pixels, label=np.array(labels))
    return path.name


def save_images(folder: Path, count: int) -> str:
    folder.mkdir(parents=True)
    for i in range(count):
        Image.fromarray(np.full((8, 8, 3), i, np.uint8)).save(folder / f"{i}.png")
    return str(folder)


@pytest.fixture
def rgb(here: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """Arguments for a network that takes images from folders."""
    monkeypatch.setitem(REGISTRY, "vit_rgb", Entry("vit_rgb", VIT, RGB, Preprocessing(8, None)))
    write_weights(here / "rgb.safetensors", "vit_rgb")
    return ("search", "config.py", "--model.name", "vit_rgb", "--model.weights", "rgb.safetensors")


# weights


def test_missing_weights(refuse: Refuse) -> None:
    line = refuse("search", "config.py", "--model.weights", "nowhere.safetensors")
    assert line.startswith("nowhere.safetensors: no such file or folder")


def test_truncated_weights(refuse: Refuse, here: Path, weights: Path) -> None:
    (here / "cut.safetensors").write_bytes(weights.read_bytes()[:50_000])
    line = refuse("search", "config.py", "--model.weights", "cut.safetensors")
    assert line.startswith("cut.safetensors: damaged, truncated or not .safetensors")


def test_pickled_weights(refuse: Refuse, here: Path) -> None:
    (here / "model.pth").write_bytes(b"x")
    assert "pickled PyTorch files can run code" in refuse(
        "search", "config.py", "--model.weights", "model.pth"
    )


def test_weights_of_another_architecture(refuse: Refuse) -> None:
    line = refuse("search", "config.py", "--model.name", "vit_tiny_patch16_224")
    assert "not weights of vit_tiny_patch16_224" in line
    assert "it fits vit_digits: give that name" in line


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda bias: bias[:-1], "blocks.0.attn.qkv.bias"),
        (lambda bias: np.full_like(bias, np.nan), "NaN"),
    ],
)
def test_misshapen_weights_and_nan(
    refuse: Refuse, here: Path, weights: Path, change: Callable[[np.ndarray], np.ndarray], message: str
) -> None:
    arrays = load_file(weights)
    arrays["blocks.0.attn.qkv.bias"] = change(arrays["blocks.0.attn.qkv.bias"])
    save_file(arrays, here / "bad.safetensors")
    line = refuse("search", "config.py", "--model.weights", "bad.safetensors")
    assert line.startswith("bad.safetensors: ")
    assert message in line


def test_unknown_model_and_a_model_without_weights(refuse: Refuse) -> None:
    line = refuse("search", "config.py", "--model.name", "vit_digit", "--model.weights", "None")
    assert "unknown model 'vit_digit'" in line
    assert "did you mean 'vit_digits'?" in line
    line = refuse("search", "config.py", "--model.name", "vit_base_patch16_224", "--model.weights", "None")
    assert line == (
        "evolq_jax comes without weights for 'vit_base_patch16_224': give them with --model.weights FILE"
    )


# images


@pytest.mark.parametrize("verb", ["search", "calibrate", "evaluate"])
def test_a_missing_image_folder(refuse: Refuse, verb: str) -> None:
    line = refuse(verb, "config.py", "--data.calibration", "nowhere")
    assert line.startswith("image source nowhere does not exist")


@pytest.mark.parametrize("verb", ["search", "evaluate"])
def test_a_missing_evaluation_folder(refuse: Refuse, verb: str) -> None:
    line = refuse(verb, "config.py", "--data.evaluation", "digits:tset")
    assert line.startswith("image source digits:tset does not exist")
    assert "did you mean 'digits:test'?" in line


def test_an_empty_folder(refuse: Refuse, here: Path) -> None:
    (here / "empty").mkdir()
    assert refuse("search", "config.py", "--data.evaluation", "empty").startswith("no images in empty")


def test_an_unknown_class(refuse: Refuse, here: Path, rgb: tuple[str, ...]) -> None:
    save_images(here / "val" / "cat", 20)
    (here / "classes.txt").write_text("dog\nhorse\n")
    folders = ("--data.calibration", "val", "--data.evaluation", "val")
    line = refuse(*rgb, *folders, "--data.class-index", "classes.txt")
    assert line.startswith("unknown class 'cat'")


def test_a_missing_class_index(refuse: Refuse, here: Path) -> None:
    save_images(here / "val" / "cat", 2)
    line = refuse("search", "config.py", "--data.evaluation", "val", "--data.class-index", "classes.txt")
    assert line == "cannot read class_index classes.txt: No such file or directory"


def test_a_class_index_where_there_are_labels(refuse: Refuse) -> None:
    assert "class_index is for folders" in refuse("search", "config.py", "--data.class-index", "classes.txt")


def test_a_label_beyond_the_classes(refuse: Refuse, here: Path) -> None:
    source = npz(here / "val.npz", 2, labels=[0, 10])
    line = refuse("search", "config.py", "--data.evaluation", source, "--data.num-evaluation", "None")
    assert line.startswith("'val.npz' has label 10, but the network has 10 classes")


def test_images_of_other_channels(refuse: Refuse, here: Path) -> None:
    source = npz(here / "rgb.npz", 30, channels=3)
    line = refuse("search", "config.py", "--data.calibration", source)
    assert line == "'rgb.npz' has 3-channel images, but the network takes 1-channel ones"


def test_an_evaluation_resize_below_the_network_s_size(refuse: Refuse) -> None:
    line = refuse("search", "config.py", "--data.evaluation-resize", "4")
    assert line == "data.evaluation_resize (4) is below the network's image size (8)"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--data.num-calibration", "0"), "data.num_calibration must be at least 1, not 0"),
        (("--data.num-calibration", "5"), "5 calibration images are fewer than one batch of 10"),
        (("--data.num-calibration", "15"), "15 calibration images are no whole number of batches of 10"),
        (("--data.num-calibration", "2000"), "data.num_calibration asks for 2000 images, but 'digits:train'"),
        (("--data.num-evaluation", "2000"), "data.num_evaluation asks for 2000 images, but 'digits:test'"),
        (("--search.batch-size", "20", "--search.holdout", "0.5"), "leaves no whole batch of 20 on one side"),
    ],
)
def test_numbers_of_images(refuse: Refuse, args: tuple[str, ...], message: str) -> None:
    assert message in refuse("search", "config.py", *args)


def test_fewer_images_than_a_batch_in_the_source(refuse: Refuse, here: Path) -> None:
    source = npz(here / "few.npz", 5)
    few = ("--data.calibration", source, "--data.num-calibration", "None")
    assert refuse("calibrate", "config.py", *few) == (
        "5 calibration images are fewer than one batch of 10: "
        "change calibration.batch_size or data.num_calibration"
    )


@pytest.mark.parametrize("which", ["calibration", "evaluation"])
def test_an_unreadable_image(refuse_late: Refuse, here: Path, rgb: tuple[str, ...], which: str) -> None:
    for name in ("calibration", "evaluation"):
        save_images(here / name, 20)
    (here / which / "3.png").write_bytes(b"no image")
    folders = ("--data.calibration", "calibration", "--data.evaluation", "evaluation")
    line = refuse_late(*rgb, *folders, "--data.num-evaluation", "None")
    assert line.startswith(f"cannot read image {which}/3.png")


def test_a_skipped_image_that_breaks_a_batch(refuse_late: Refuse, here: Path, rgb: tuple[str, ...]) -> None:
    for name in ("calibration", "evaluation"):
        save_images(here / name, 20)
    (here / "calibration" / "3.png").write_bytes(b"no image")
    folders = ("--data.calibration", "calibration", "--data.evaluation", "evaluation")
    line = refuse_late(*rgb, *folders, "--data.num-evaluation", "None", "--data.on-corrupt", "skip")
    assert line.startswith(
        "19 calibration images (1 unreadable ones left out) are no whole number of batches"
    )


# the config


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--quant.weight-bits", "9"), "quant.weight_bits must be from 2 to 8, not 9"),
        (("--quant.activation_bits=1",), "quant.activation_bits must be from 2 to 8, not 1"),
        (("--search.passes", "0"), "search.passes must be at least 1, not 0"),
        (("--seed", "-1"), "seed must be from 0 to 4294967295, not -1"),
        (("--search.sites", "*/attn/qvk/weight"), "'*/attn/qvk/weight' matches no quantization site"),
        (("--search.sites", "head"), "'head' matches no quantization site"),
        (("--search.algorithm", "SNSE", "--search.parametrization", "log"), "did you mean 'SNES'?"),
        (("--search.fitness", "info_nec"), "unknown fitness 'info_nec'; did you mean 'info_nce'?"),
        (("--calibration.chain", "rangse"), "unknown initialiser 'rangse'; did you mean 'ranges'?"),
        (("--quant.scheme", "matmull"), "invalid choice 'matmull' for argument '--quant.scheme'"),
        (("--search.passes", "abc"), "Error parsing --search.passes: invalid literal for int()"),
        (("--search.passes",), "Missing value for argument '--search.passes'"),
        (("--seed", "1.5"), "Error parsing --seed"),
        (("--serach.passes", "3"), "unknown option '--serach.passes'; did you mean '--search.passes'?"),
        (("--passes=3",), "unknown option '--passes'; did you mean '--search.passes'?"),
        (("--dryrun",), "unknown option '--dryrun'; did you mean '--dry-run'?"),
        (("-x",), "unknown option '-x'"),
        (("3",), "unexpected argument '3'"),
        (("--seed", "1", "2"), "unexpected argument '2'"),
        (("--preset", "fathful"), "argument --preset: invalid choice: 'fathful'"),
        (("--run-dir",), "argument --run-dir: expected one argument"),
    ],
)
@pytest.mark.parametrize("more", [(), ("--dry-run",)], ids=["search", "plan"])
def test_fields_and_options(
    refuse: Refuse, args: tuple[str, ...], more: tuple[str, ...], message: str
) -> None:
    assert message in refuse("search", "config.py", *more, *args)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("config = (", "config file 'mine.py': SyntaxError"),
        ("import nothing_of_that_name", "config file 'mine.py', line 1: ModuleNotFoundError"),
        ("config = 3", "config file 'mine.py' defines no `config = Experiment(...)`"),
        (CONFIG + "config = type(config)(sead=1)", "unexpected keyword argument 'sead'"),
        (
            CONFIG + "from evolq_jax.config import *\nconfig = Experiment(quant=QuantConfig(weight_bits=9))",
            "config file 'mine.py': quant.weight_bits must be from 2 to 8, not 9",
        ),
        (
            CONFIG + "from evolq_jax.config import *\nfrom dataclasses import replace\n"
            "config = replace(config, quant=QuantConfig(rules=(Rule('blocks/atn/*', bits=8),)))",
            "site pattern 'blocks/atn/*' matches no quantization site",
        ),
    ],
)
def test_config_files(refuse: Refuse, here: Path, text: str, message: str) -> None:
    (here / "mine.py").write_text(text)
    assert message in refuse("search", "mine.py")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((), "name what to do (one of search, calibrate, evaluate, train, models; `evolq --help`"),
        (("serach", "config.py"), "unknown verb 'serach'; did you mean 'search'?"),
        (("search",), "`evolq search` needs a config file, as in: evolq search configs/"),
        (("train",), "`evolq train` needs a config file, as in: evolq train configs/train_digits.py"),
        (("search", "confg.py"), "no config file at 'confg.py'; did you mean 'config.py'?"),
        (
            ("search", "--seed", "1", "config.py"),
            "'--seed' comes before a config file: write evolq search CONFIG",
        ),
        (("train", "config.py"), "config file 'config.py' defines no `config = TrainExperiment(...)`"),
        (("models", "x"), "`evolq models` takes no argument 'x'"),
        (("calibrate", "config.py", "--dry-run"), "unknown option '--dry-run'"),
    ],
)
def test_verbs(refuse: Refuse, args: tuple[str, ...], message: str) -> None:
    assert message in refuse(*args)


# run directories


@pytest.mark.parametrize("verb", ["search", "calibrate"])
@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("file/run", "cannot write 'file/run': Not a directory; name another with --run-dir"),
        ("file", "run directory 'file' is not empty; name another with --run-dir"),
        ("full", "run directory 'full' is not empty; name another with --run-dir"),
    ],
)
def test_run_directories_that_cannot_be_written(
    refuse: Refuse, here: Path, verb: str, path: str, message: str
) -> None:
    (here / "file").write_text("")
    (here / "full").mkdir()
    (here / "full" / "precious.txt").write_text("")
    assert refuse(verb, "config.py", "--run-dir", path) == message


def test_a_runs_folder_that_cannot_be_made(refuse: Refuse, here: Path) -> None:
    (here / "runs").write_text("")
    assert refuse("search", "config.py").startswith("cannot write 'runs/small-001': Not a directory")


@pytest.fixture
def calibrated(here: Path) -> Path:
    """A run directory without scales."""
    path = here / "run"
    path.mkdir()
    (path / "config.json").write_text(to_json(Experiment()))
    return path


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("sead", 1, "run/config.json: not a config: unknown key 'sead'; did you mean 'seed'?"),
        ("seed", "one", "run/config.json: not a config: invalid value for type, expected int @ $.seed"),
        ("quant", {"weight_bits": 9}, "quant.weight_bits must be from 2 to 8, not 9"),
    ],
)
def test_a_run_s_config(refuse: Refuse, calibrated: Path, key: str, value: object, message: str) -> None:
    path = calibrated / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    assert message in refuse("evaluate", "run")


def test_a_run_without_scales(refuse: Refuse, calibrated: Path) -> None:
    model = {"name": "vit_digits", "weights": "weights.safetensors"}
    path = calibrated / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model": model}))
    assert refuse("evaluate", "run").startswith("no readable scales in 'run/init_scales.safetensors'")


def test_a_run_keeps_its_config(refuse: Refuse, calibrated: Path) -> None:
    line = "a run keeps its config, so '{}' cannot be set on one"
    assert refuse("evaluate", "run", "--seed", "3") == line.format("--seed")
    assert refuse("evaluate", "run", "--preset", "faithful") == line.format("--preset")


def test_a_folder_that_is_no_run(refuse: Refuse, here: Path) -> None:
    (here / "empty").mkdir()
    assert refuse("evaluate", "empty") == "'empty' is no run directory: it holds no config.json"


def test_interrupting_says_so(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*args: object, **kwargs: object) -> NoReturn:
        raise KeyboardInterrupt

    monkeypatch.setattr(images, "load_images", interrupt)
    monkeypatch.setattr(sys, "argv", ["evolq", "search", "config.py"])
    before = listing(here)
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 130
    assert capsys.readouterr().err == "evolq: interrupted\n"
    assert listing(here) == before
