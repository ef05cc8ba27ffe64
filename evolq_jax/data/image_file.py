"""One image file as 8-bit pixels: its colour mode, its depth, then resizing and cropping."""

import struct
import zlib
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
from PIL import Image

from evolq_jax.data.preprocess import resize_and_crop
from evolq_jax.data.source import Unreadable
from evolq_jax.paths import open_regular
from evolq_jax.typing import Preprocessing

# Pillow's decoders let some of their parsers' errors through.
_DECODE_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    TypeError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
_TWELVE_BITS = (1 << 12) - 1
_SIXTEEN_BITS = (1 << 16) - 1
_WHITE_IS_ZERO, _BITS_PER_SAMPLE = 262, 258  # tags of TIFF


def decode_file(path: Path, preprocessing: Preprocessing) -> np.ndarray:
    """Decodes one file to RGB, resizes it and crops it.

    Returns:
        uint8 [size, size, 3].

    Raises:
        Unreadable: the file is not regular, cannot be opened or decoded to its end, or it does not say what
            its values mean.
        UserError: the image is smaller than the crop.
    """
    try:
        file = open_regular(path)
    except OSError as error:
        raise Unreadable(f"{path} ({error.strerror})") from error
    with file:
        return decode_image(file, path, preprocessing)


def decode_image(
    file: BinaryIO, name: str | Path, preprocessing: Preprocessing, mode: Literal["RGB", "L"] = "RGB"
) -> np.ndarray:
    """As `decode_file`, for an open file: uint8 [size, size, K], K = 3 (RGB) or 1 (L)."""
    try:
        with Image.open(file) as image:
            pixels = _eight_bits(image).convert(mode)
            _check_transparency(image, pixels)
    except _DECODE_ERRORS as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise Unreadable(f"{name} ({reason})") from error
    return resize_and_crop(pixels, preprocessing, name)


def _eight_bits(image: Image.Image) -> Image.Image:
    """The image with 8 bits a channel.

    Pillow's own conversion cuts grey values of more bits off at 255, so that a picture becomes white.

    Raises:
        ValueError: the file does not say which value is white.
    """
    tiles = getattr(image, "tile", [])  # of images from files, until their pixels are there
    depth = str(tiles[0].args) if tiles else ""
    if image.mode == "P":
        image.info.pop("transparency", None)  # dropped, as by torchvision; Pillow would warn of it
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers of unknown range: save it with 8 bits")
    if image.mode == "I" and image.format != "PPM":
        raise ValueError("its pixels are 32-bit or signed integers of unknown range: save it with 8 bits")
    if image.mode == "I" or image.mode.startswith("I;16"):
        stated = image.format == "PPM" and str(_SIXTEEN_BITS) not in depth  # Pillow has brought it to 16
        return _from_sixteen_bits(image, stated)
    if ";16" in depth:  # a colour image; Pillow keeps the upper byte of each value
        image.load()
        highest = max(np.asarray(image).max(axis=(0, 1))[:3])
        if 0 < highest <= _TWELVE_BITS >> 8:
            raise _twelve_bits()
    return image


def _from_sixteen_bits(image: Image.Image, stated: bool) -> Image.Image:
    """A grey image of 16 bits; `stated`: its file says which value is white. TIFF can say that it has 12."""
    tags, white = getattr(image, "tag_v2", {}), _SIXTEEN_BITS
    values = np.asarray(image).astype(np.int64)
    if tags.get(_BITS_PER_SAMPLE) == (12,):
        stated, white = True, _TWELVE_BITS
    if not stated and 0 < values.max() <= _TWELVE_BITS:
        raise _twelve_bits()
    if tags.get(_WHITE_IS_ZERO) == 0:
        values = white - values
    return Image.fromarray(((values * 255 + white // 2) // white).astype(np.uint8))


def _twelve_bits() -> ValueError:
    return ValueError(
        f"its 16-bit values end below {_TWELVE_BITS + 1}, as those of 12-bit images do, and would be nearly "
        "black: save it with 8 bits"
    )


def _check_transparency(image: Image.Image, pixels: Image.Image) -> None:
    """Refuses a picture that is in its transparency alone. Without it, nothing is left.

    Raises:
        ValueError: it is one.
    """
    bands = image.getbands()
    if "A" not in bands and bands != ("P",):
        return
    low, high = image.getchannel(bands[-1]).getextrema()
    colours = np.reshape(pixels.getextrema(), (-1, 2))
    if low != high and (colours[:, 0] == colours[:, 1]).all():
        raise ValueError("all of its picture is in its transparency: save it on a background")
