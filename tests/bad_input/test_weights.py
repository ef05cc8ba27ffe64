import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.bad_input.conftest import Refuse
from tests.small_run import write_weights


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


@pytest.mark.parametrize("fitness", ["info_nce", "kl+0.5*cosine"])
def test_a_fitness_that_is_blind_to_one_output(refuse: Refuse, here: Path, fitness: str) -> None:
    head = {"head/weight": np.ones((64, 1), np.float32), "head/bias": np.zeros(1, np.float32)}
    write_weights(here / "one.safetensors", changes=head)
    line = refuse("search", "config.py", "--model.weights", "one.safetensors", "--search.fitness", fitness)
    assert line.endswith("has one output, which has none: take kl or mse")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[" * 100_000, "not readable as JSON (nested too deeply)"),
        ('{"mean": [' + "1" * 6_000 + "]}", "not readable as JSON"),
        ('{"mean": [NaN]}', "mean is NaN, not a finite number"),
        ('{"mean": [0.5], "std": [0]}', "preprocessing.std must be positive and finite, not 0"),
        ('{"mean": [0.5], "std": [-1]}', "preprocessing.std must be positive and finite, not -1"),
        ('{"mean": [0.5], "std": [Infinity]}', "std is Infinity, not a finite number"),
        ('{"mean": [0.5], "mean": [0.4]}', "'mean' stands twice, with two values"),
        ('{"architecture": "resnet18"}', "are 'resnet18', not 'vit_digits': give that name"),
        ('{"architecture": "vit_x", "mean": [0.5]}', "evolq_jax does not have that network"),
        ('{"mean": [0.5], "model_args": 3}', "model_args is 3, not an object"),
    ],
)
def test_files_beside_the_weights(refuse: Refuse, here: Path, content: str, message: str) -> None:
    (here / "config.json").write_text(content)
    line = refuse("search", "config.py")
    assert message in line
    assert "config.json: " in line


@pytest.mark.parametrize("member", [b"", b"no array", b"\x93NUMPY\x01\x00\x10\x00{'descr': '<f4'}"])
def test_an_archive_whose_member_is_no_array(refuse: Refuse, here: Path, member: bytes) -> None:
    with zipfile.ZipFile(here / "bad.npz", "w") as archive:
        archive.writestr("x.npy", member)
    line = refuse("search", "config.py", "--model.weights", "bad.npz")
    assert line.startswith("bad.npz: damaged, truncated or not .npz (x.npy is no array")


@pytest.mark.parametrize("name", ["x" * 300, "~nosuchuser/w.npz"])
def test_names_that_no_file_can_have(refuse: Refuse, name: str) -> None:
    assert refuse("search", "config.py", "--model.weights", name)


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("mean", "nan", "preprocessing.mean must be finite"),
        ("std", "0", "preprocessing.std must be positive"),
        ("crop", "0", "preprocessing.crop must be at least 1"),
        ("crop", "12", "preprocessing.crop is 12, but"),
        ("resize", "7", "preprocessing.resize (7) must be None or at least preprocessing.crop (8)"),
        ("interpolation", "cubic", "cubic"),
    ],
)
def test_preprocessing_that_cannot_be(refuse: Refuse, option: str, value: str, message: str) -> None:
    assert message in refuse("search", "config.py", f"--preprocessing.{option}", value)
