"""The CIFAR-10 networks of the studies, and their calibration images in two halves."""

from pathlib import Path

import numpy as np

from evolq_jax.config.experiment import (
    DataConfig,
    Experiment,
    ModelConfig,
    QuantConfig,
    SearchConfig,
)
from evolq_jax.data import load_images
from evolq_jax.data.cache import atomic
from evolq_jax.models.registry import get_entry

NAMES = {
    "cifar_vit": "vit_d128_l4_cifar10",
    "cifar_resnet20": "resnet20_cifar10",
    "cifar_resnet56": "resnet56_cifar10",
}


def cifar(data: Path, subject: str, weight_bits: int, activation_bits: int) -> Experiment:
    """A CIFAR-10 network in `matmul`, calibrated on 200 training images, scored on 2,000 test images."""
    name = NAMES[subject]
    return Experiment(
        name=subject,
        model=ModelConfig(name, str(data / f"weights/{name}.safetensors")),
        data=DataConfig(
            str(data / "cifar10/calib.npz"),
            str(data / "cifar10/test.npz"),
            num_calibration=200,
            num_evaluation=2000,
            cache=None,
        ),
        quant=QuantConfig("matmul", weight_bits=weight_bits, activation_bits=activation_bits),
        search=SearchConfig(image_chunk=50),
        evaluation_batch=100,
    )


def calibration_images(data: Path) -> np.ndarray:
    """All of them, uint8 [B, 32, 32, 3].

    Raises:
      UserError: the file is missing.
    """
    preprocessing = get_entry(NAMES["cifar_vit"]).preprocessing
    return np.asarray(load_images(str(data / "cifar10/calib.npz"), preprocessing, cache_dir=None).pixels)


def halves(images: np.ndarray, out: Path) -> tuple[str, str]:
    """Calibration images [B, ...] in two files: those that calibrate, and those that judge settings."""
    files = out / "calibrate.npz", out / "judge.npz"
    out.mkdir(parents=True, exist_ok=True)
    for file, half in zip(files, np.split(images, [len(images) // 2]), strict=True):
        if not file.is_file():
            with atomic(file) as open_file:
                np.savez(open_file, image=half)
    return str(files[0]), str(files[1])
