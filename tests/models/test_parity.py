"""Logits against those recorded from timm, and accuracy of real checkpoints on real images."""

import json
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from evolq_jax.models.checkpoint import load_checkpoint
from evolq_jax.models.registry import REGISTRY, get_entry, param_shapes
from evolq_jax.network.network import Network
from evolq_jax.network.reading import float_reading
from evolq_jax.network.run import forward, normalize
from evolq_jax.typing import Params
from tests.models.recipe import images, weight
from tests.models.seeded import logits

pytestmark = pytest.mark.shared

VIT_TINY = "vit_tiny_patch16_224.augreg_in21k_ft_in1k"
Golden = Callable[[str], dict[str, np.ndarray]]


def top1(model: Network, pixels: np.ndarray, labels: np.ndarray, batch: int) -> float:
    @jax.jit
    def predict(params: Params, pixels: jax.Array) -> jax.Array:
        x = normalize(model.preprocessing, pixels)
        return forward(model.parts, float_reading(params), x).argmax(-1)

    batches = pixels.reshape(-1, batch, *pixels.shape[1:])
    predicted = np.concatenate([predict(model.params, jnp.asarray(b)) for b in batches])
    return float(np.mean(predicted == labels))


@pytest.mark.parametrize(
    "name",
    [
        "vit_tiny_patch16_224",
        "vit_small_patch16_224",
        "deit_tiny_patch16_224",
        "deit_tiny_distilled_patch16_224",
        "swin_tiny_patch4_window7_224",
        "levit_128s",
        pytest.param("levit_256", marks=pytest.mark.slow),
        "resnet18",
        "mobilenetv2_100",
        pytest.param("resnet50", marks=pytest.mark.slow),
        pytest.param("deit_base_patch16_224", marks=pytest.mark.slow),
    ],
)
def test_logits_are_timms(name: str, shared: Path, golden: Golden, tmp_path: Path) -> None:
    shapes = json.loads((shared / "golden" / "timm_keys.json").read_text())[name]
    path, want = tmp_path / "w.safetensors", golden("timm_logits")[name]
    save_file({key: weight(key, tuple(shape)) for key, shape in shapes.items()}, path)
    has_batch_norm = any("running_mean" in key for key in shapes)
    for fold in (False, True) if has_batch_norm else (True,):
        got = logits(load_checkpoint(name, path, fold_batch_norm=fold), images(224, 3))
        assert np.linalg.norm(got - want) / np.linalg.norm(want) < 1e-4


def test_parameters_are_as_many_as_timms(shared: Path) -> None:
    models = json.loads((shared / "golden" / "timm_keys.json").read_text())
    known = [name for name in models if name in REGISTRY]
    assert len(known) >= 11
    for name in known:
        entry = get_entry(name)
        ours = sum(int(np.prod(shape)) for shape in param_shapes(entry.family, entry.config).values())
        assert ours == sum(int(np.prod(shape)) for shape in models[name].values())


@pytest.mark.slow
def test_real_vit_tiny_classifies(shared: Path) -> None:
    synsets = (shared / "data/imagenet/synsets.txt").read_text().split()
    folder = shared / "data/imagenet/val"
    paths = sorted(p for p in folder.glob("*/*.JPEG"))[::20][:64]
    assert len(paths) == 64
    pixels = np.stack([np.asarray(Image.open(p).convert("RGB"))[2:226, 2:226] for p in paths])  # of 227
    labels = np.array([synsets.index(p.parent.name) for p in paths])
    model = load_checkpoint(VIT_TINY, shared / f"data/weights/{VIT_TINY}.safetensors")
    accuracy = top1(model, pixels, labels, 8)
    assert 0.72 < accuracy < 0.95  # 82.2 % on all 1,300; the standard error of 64 is 5 %


def test_real_cifar_vit_classifies(shared: Path) -> None:
    with np.load(shared / "data/cifar10/test.npz", allow_pickle=False) as data:
        pixels, labels = data["image"][:500], data["label"][:500]
    model = load_checkpoint("vit_d128_l4_cifar10", shared / "data/weights/vit_d128_l4_cifar10.safetensors")
    assert 0.64 < top1(model, pixels, labels, 100) < 0.76  # 69.7 % on all 10,000


@pytest.mark.parametrize(
    ("name", "accuracy"),
    [("resnet20_cifar10", 0.810), pytest.param("resnet56_cifar10", 0.832, marks=pytest.mark.slow)],
)
def test_real_cifar_resnets_classify(name: str, accuracy: float, shared: Path) -> None:
    with np.load(shared / "data/cifar10/test.npz", allow_pickle=False) as data:
        pixels, labels = data["image"][::5], data["label"][::5]
    model = load_checkpoint(name, shared / f"data/weights/{name}.safetensors")
    assert abs(top1(model, pixels, labels, 100) - accuracy) < 0.02  # `accuracy`: on all 10,000
