"""The real ViT-Tiny and the images on which the official code was recorded."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from evolq_jax.models.checkpoint import load_checkpoint
from evolq_jax.network.network import Network
from evolq_jax.network.run import normalize
from evolq_jax.network.sites import list_sites
from evolq_jax.typing import Array, SiteInfo

VIT_TINY = "vit_tiny_patch16_224.augreg_in21k_ft_in1k"
Golden = Callable[[str], dict[str, np.ndarray]]


class Recording(NamedTuple):
    """What all recorded files share."""

    model: Network
    sites: dict[str, SiteInfo]
    calibration: Array  # [100, 224, 224, 3], normalised
    validation: Array  # [16, 224, 224, 3]


def calibration_pixels(folder: Path, index: np.ndarray) -> np.ndarray:
    """Of 256: the shorter side to 248, bicubic, and the centre."""
    paths = sorted(folder.glob("*/*"))
    images = [Image.open(paths[i]).convert("RGB").resize((248, 248), Image.Resampling.BICUBIC) for i in index]
    return np.stack([np.asarray(image)[12:236, 12:236] for image in images])


def validation_pixels(folder: Path, synsets: list[str], index: np.ndarray) -> np.ndarray:
    """Of 227: the centre, with an offset of 2; sorted by class index, then by name."""
    paths = sorted(folder.glob("*/*"), key=lambda path: (synsets.index(path.parent.name), path.name))
    return np.stack([np.asarray(Image.open(paths[i]).convert("RGB"))[2:226, 2:226] for i in index])


@pytest.fixture(scope="session")
def recording(shared: Path, golden: Golden) -> Recording:
    model = load_checkpoint(VIT_TINY, shared / f"data/weights/{VIT_TINY}.safetensors")
    imagenet = shared / "data/imagenet"
    synsets = (imagenet / "synsets.txt").read_text().split()
    indices = golden("evolq_w8a8_bc1")
    calibration = calibration_pixels(imagenet / "calib", indices["calib_index"])
    validation = validation_pixels(imagenet / "val", synsets, indices["val_index"][:16])
    return Recording(
        model,
        list_sites(model.parts, model.params, (224, 224, 3)),
        normalize(model.preprocessing, jnp.asarray(calibration)),
        normalize(model.preprocessing, jnp.asarray(validation)),
    )
