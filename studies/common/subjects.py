"""The networks of the studies, with their data: CIFAR-10 networks, and ViT-Tiny on ImageNet."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from evolq_jax.config.experiment import (
    CalibrationConfig,
    DataConfig,
    Experiment,
    ModelConfig,
    QuantConfig,
    SearchConfig,
)
from evolq_jax.config.load import load_config
from evolq_jax.config.presets import Preset, plain, with_preset
from evolq_jax.data import load_images
from evolq_jax.models.registry import get_entry
from evolq_jax.paths import atomic

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
CIFAR = {
    "cifar_vit": "vit_d128_l4_cifar10",
    "cifar_resnet20": "resnet20_cifar10",
    "cifar_resnet56": "resnet56_cifar10",
}
SCHEMES = ("matmul", "fully_quantized")
PRESETS: tuple[Preset, ...] = ("faithful", "plain", "fast", "thorough", "strong")
BUDGET = 5_300  # candidate-images of `faithful`: what `plain` spends at most
BITS: dict[str, dict[str, Any]] = {
    "W8A8": {"weight_bits": 8, "activation_bits": 8},
    "W6A6": {"weight_bits": 6, "activation_bits": 6},
    "W4A8": {"weight_bits": 4, "activation_bits": 8},
    "W3A8": {"weight_bits": 3, "activation_bits": 8},
    "W4A4": {"weight_bits": 4, "activation_bits": 4},
    "W4A4, softmax 8": {"weight_bits": 4, "activation_bits": 4, "softmax_bits": 8},
    "W3A3": {"weight_bits": 3, "activation_bits": 3},
}
# How many images calibrate an initialisation, and for each number the batch and the chunk.
IMAGES, ALL_IMAGES = 128, 1000
BATCH = {32: 32, IMAGES: 64, ALL_IMAGES: 100}
IMAGE_CHUNK = {32: 16, IMAGES: 16, ALL_IMAGES: 20}


def only_ranges(config: Experiment) -> Experiment:
    """The config with nothing after its ranges."""
    return replace(config, calibration=replace(config.calibration, chain=("ranges",)))


def plain_ranges(config: Experiment) -> Experiment:
    """The preset `plain` without ranges by outputs."""
    return only_ranges(plain(config))


def cifar(data: Path, subject: str, weight_bits: int, activation_bits: int) -> Experiment:
    """A CIFAR-10 network in `matmul`: plain ranges of 200 training images, scored on 2,000 test images."""
    name = CIFAR[subject]
    config = Experiment(
        name=subject,
        model=ModelConfig(name, str(data / f"weights/{name}.safetensors")),
        data=DataConfig(
            str(data / "cifar10/calib.npz"),
            str(data / "cifar10/test.npz"),
            num_calibration=200,
            num_evaluation=2000,
            cache=None,
        ),
        quant=QuantConfig(
            "matmul", weight_bits=weight_bits, activation_bits=activation_bits, quantize_image=True
        ),
        search=SearchConfig(image_chunk=50),
        evaluation_batch=100,
    )
    return plain_ranges(config)


def vit_tiny(data: Path, bits: int, scheme: str, preset: Preset, seed: int) -> Experiment:
    """ViT-Tiny as its shipped config file has it, with this data, scheme, preset and seed."""
    config: Experiment = load_config(CONFIGS / f"vit_tiny_w{bits}a8.py")
    images = data / "imagenet"
    config = replace(
        config,
        model=replace(
            config.model,
            weights=str(data / "weights/vit_tiny_patch16_224.augreg_in21k_ft_in1k.safetensors"),
        ),
        data=replace(
            config.data,
            calibration=str(images / "calib"),
            evaluation=str(images / "val"),
            class_index=str(images / "synsets.txt"),
            evaluation_resize=None,
        ),
        quant=replace(config.quant, scheme=scheme),
        seed=seed,
    )
    config = with_preset(config, preset)
    if preset == "faithful":
        config = replace(config, search=replace(config.search, budget=BUDGET))
    return config


def with_setting(config: Experiment, scheme: str, bits: str, images: int = IMAGES) -> Experiment:
    """The config at these bits, calibrated with plain ranges on so many images."""
    return plain_ranges(
        replace(
            config,
            data=replace(config.data, num_calibration=images),
            calibration=CalibrationConfig(batch_size=BATCH[images], image_chunk=IMAGE_CHUNK[images]),
            quant=QuantConfig(scheme, quantize_image=True, **BITS[bits]),  # type: ignore[arg-type]
        )
    )


def on_halves(config: Experiment, out: Path) -> Experiment:
    """The config on its calibration images alone: one half calibrates, the other half judges.

    So a study may choose settings. The halves are two files in `out`. Missing files are written.

    Raises:
      UserError: the images are missing.
    """
    files = out / "calibrate.npz", out / "judge.npz"
    if not all(file.is_file() for file in files):
        source, preprocessing = config.data.calibration, get_entry(config.model.name).preprocessing
        images = np.asarray(load_images(source, preprocessing, cache_dir=None).pixels)
        if Path(source).is_dir():  # a folder has them class by class; an archive was drawn at random
            images = np.random.default_rng(0).permutation(images)
        out.mkdir(parents=True, exist_ok=True)
        for file, half in zip(files, np.split(images, [len(images) // 2]), strict=True):
            with atomic(file) as open_file:
                np.savez(open_file, image=half)
    calibrate, judge = map(str, files)
    halves = replace(
        config.data, calibration=calibrate, evaluation=judge, class_index=None, num_evaluation=None
    )
    return replace(config, data=halves)
