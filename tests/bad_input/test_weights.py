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
