from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

import evolq_jax.models
from evolq_jax.data import load_images
from evolq_jax.errors import UserError
from evolq_jax.models.checkpoint import load_checkpoint
from evolq_jax.quantized.logits import compute_logits
from evolq_jax.verbs.train import TrainConfig, TrainExperiment, run_training

WEIGHTS = Path(evolq_jax.models.__file__).parent / "weights" / "vit_digits.safetensors"
QUICK = TrainConfig(epochs=2, batch_size=10, warmup=1)


@pytest.fixture
def experiment(tmp_path: Path) -> TrainExperiment:
    """Forty random 8x8 images of three classes, learnt for two epochs."""
    rng = np.random.default_rng(0)
    for name, count in (("train", 40), ("test", 15)):
        images = rng.integers(0, 256, (count, 8, 8, 1), dtype=np.uint8)
        np.savez(tmp_path / f"{name}.npz", image=images, label=np.arange(count) % 3)
    train, test = str(tmp_path / "train.npz"), str(tmp_path / "test.npz")
    return TrainExperiment("vit_digits", train, test, str(tmp_path / "new" / "out.safetensors"), train=QUICK)


def metadata(path: Path) -> dict[str, str]:
    with safe_open(path, "numpy") as file:
        return file.metadata()


def top1(path: Path, source: str) -> float:
    model = load_checkpoint("vit_digits", path)
    images = load_images(source, model.preprocessing)
    logits = compute_logits(model, images.pixels, batch_size=100)
    return float((logits.argmax(-1) == images.labels).mean())


def test_trained_weights_load_with_what_is_known_of_them(experiment: TrainExperiment) -> None:
    told: list[tuple[int, int]] = []
    trained = run_training(
        replace(experiment, num_classes=3), lambda done, total: told.append((done, total)), "evolq train x.py"
    )
    assert told == [(1, 2), (2, 2)]
    assert trained.path == Path(experiment.out)
    assert load_checkpoint("vit_digits", trained.path).config.num_classes == 3
    assert trained.top1 == top1(trained.path, experiment.test_data)
    known = metadata(trained.path)
    assert known["model"] == "vit_digits"
    assert known["command"] == "evolq train x.py"
    assert known["top1"].startswith(f"{trained.top1:.4f} on the 15 images")
    assert '"epochs": 2' in known["config"]
    assert [file.name for file in trained.path.parent.iterdir()] == ["out.safetensors"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "vit_digit"}, "unknown model 'vit_digit'.*did you mean 'vit_digits'"),
        ({"out": "weights.npz"}, r"out is 'weights\.npz': weights are written as \.safetensors"),
        ({"train_data": "digits:trian"}, "did you mean 'digits:train'"),
        ({"num_classes": 2}, "label 2 is outside the network's 2 classes.*set num_classes"),
    ],
)
def test_what_is_wrong_is_found_before_training(
    experiment: TrainExperiment, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        run_training(replace(experiment, **changes))  # pyright: ignore[reportArgumentType]
    assert not Path(experiment.out).exists()


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"image": np.zeros((20, 8, 8, 1), np.uint8)}, r"odd\.npz' has no labels"),
        (
            {"image": np.zeros((20, 8, 8, 3), np.uint8), "label": np.zeros(20, np.int32)},
            r"odd\.npz' has images of 3 channels, but the network takes 1",
        ),
    ],
)
def test_unfit_images_are_refused(
    experiment: TrainExperiment, tmp_path: Path, arrays: dict[str, np.ndarray], message: str
) -> None:
    np.savez(tmp_path / "odd.npz", **arrays)  # pyright: ignore[reportArgumentType]
    with pytest.raises(UserError, match=message):
        run_training(replace(experiment, test_data=str(tmp_path / "odd.npz")))


def test_a_file_in_the_folder_s_place_is_refused(experiment: TrainExperiment, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="its folder cannot be made"):
        run_training(replace(experiment, out=str(tmp_path / "file" / "out.safetensors")))


def test_shipped_digits_weights_are_small_and_as_good_as_they_say() -> None:
    assert WEIGHTS.stat().st_size < 2**20
    known = metadata(WEIGHTS)
    found = top1(WEIGHTS, "digits:test")
    assert found > 0.97
    # another machine may round an image or two differently
    assert abs(found - float(known["top1"].split()[0])) < 3 / 697


def test_a_network_with_batch_norm_is_refused(experiment: TrainExperiment) -> None:
    with pytest.raises(UserError, match=r"model 'resnet20_cifar10' has BatchNorm.*choose a ViT"):
        run_training(replace(experiment, model="resnet20_cifar10"))
