"""Resizes and crops images as timm and torchvision do with Pillow. Normalisation comes later.

The rules are those of torchvision's `Resize` (with an int: the shorter side) and `CenterCrop`. Pillow filters
on uint8. EXIF orientation is ignored, as in torchvision.
"""

from pathlib import Path

import numpy as np
from PIL import Image

from evolq_jax.errors import UserError, suggestion
from evolq_jax.typing import Preprocessing

INTERPOLATIONS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
}


def check_preprocessing(preprocessing: Preprocessing) -> None:
    """Checks the settings before an image is read.

    Raises:
        UserError: the interpolation is unknown, a size is not positive, or the resize is below the crop.
    """
    size, resize, name = preprocessing.size, preprocessing.resize, preprocessing.interpolation
    if name not in INTERPOLATIONS:
        raise UserError(
            f"preprocessing.interpolation '{name}' is unknown (known: {', '.join(INTERPOLATIONS)})"
            f"{suggestion(name, INTERPOLATIONS)}"
        )
    if size <= 0:
        raise UserError(f"preprocessing.crop must be positive, got {size}")
    if resize is not None and resize < size:
        raise UserError(
            f"preprocessing.resize ({resize}) must be None or at least preprocessing.crop ({size})"
        )


def resized_size(width: int, height: int, short: int) -> tuple[int, int]:
    """The (width, height) whose shorter side is `short`; the longer side is rounded down (torchvision)."""
    if width <= height:
        return short, int(short * height / width)
    return int(short * width / height), short


def resize_and_crop(image: Image.Image, preprocessing: Preprocessing, name: str | Path) -> np.ndarray:
    """Resizes to `preprocessing.resize` (None: not at all) and cuts out the centre.

    Args:
        image: a Pillow image of mode RGB or L.
        preprocessing: sizes and interpolation; checked by `check_preprocessing`.
        name: the image's name in the error.

    Returns:
        uint8 [size, size, K], K = 3 (RGB) or 1 (L).

    Raises:
        UserError: the image is smaller than the crop (torchvision would pad it with black).
    """
    if preprocessing.resize is not None:
        image = _resize(image, preprocessing.resize, preprocessing)
    size = preprocessing.size
    if image.width < size or image.height < size:
        raise UserError(
            f"image {name} is {image.width}x{image.height}, smaller than the crop of {size}x{size}; "
            f"set preprocessing.resize to {size} or more when you calibrate (--preprocessing.resize {size})"
        )
    left = round((image.width - size) / 2)  # halves go to the even neighbour, as there
    top = round((image.height - size) / 2)
    pixels = np.asarray(image.crop((left, top, left + size, top + size)))
    return pixels if pixels.ndim == 3 else pixels[:, :, None]


def fit_array(pixels: np.ndarray, preprocessing: Preprocessing, name: str | Path) -> np.ndarray:
    """Brings one image of an array set to the wanted size.

    With a `resize` it is treated like a file: resize the shorter side, then crop the centre. Without one, the
    shorter side is resized to `size`, because an array set is cropped only if the checkpoint asks for it.

    Args:
        pixels: uint8 [h, w, K], K = 3 or 1.
        preprocessing: sizes and interpolation.
        name: the image's name in an error.

    Returns:
        uint8 [size, size, K].
    """
    image = Image.fromarray(pixels[:, :, 0] if pixels.shape[-1] == 1 else pixels)
    if preprocessing.resize is None:
        image = _resize(image, preprocessing.size, preprocessing)
    return resize_and_crop(image, preprocessing, name)


def _resize(image: Image.Image, short: int, preprocessing: Preprocessing) -> Image.Image:
    squash = preprocessing.crop_mode == "squash"
    wanted = (short, short) if squash else resized_size(image.width, image.height, short)
    return (
        image if image.size == wanted else image.resize(wanted, INTERPOLATIONS[preprocessing.interpolation])
    )
