"""Every mode and depth becomes the right 8-bit values, or is refused by name."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from evolq_jax.data.image_file import decode_file, decode_image
from evolq_jax.data.source import Unreadable
from evolq_jax.typing import Preprocessing

AS_IS = Preprocessing(size=16, resize=None)
GREY = np.arange(256, dtype=np.uint8).reshape(16, 16)
COLOUR = np.stack([GREY, GREY[::-1], GREY.T], axis=-1)


def saved(path: Path, pixels: np.ndarray, format: str | None = None, **options: Any) -> Path:
    Image.fromarray(pixels).save(path, format, **options)
    return path


@pytest.mark.parametrize("ending", ["png", "tif", "pgm"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_sixteen_bits_are_scaled_to_eight(tmp_path: Path, ending: str, mode: Any) -> None:
    path = saved(tmp_path / f"x.{ending}", GREY.astype(np.uint16) * 257)
    with path.open("rb") as file:
        found = decode_image(file, path, AS_IS, mode)
    for channel in range(found.shape[-1]):
        np.testing.assert_array_equal(found[:, :, channel], GREY)


def test_values_between_are_rounded(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.png", np.full((16, 16), 32768, np.uint16))
    assert decode_file(path, AS_IS)[0, 0, 0] == 128  # 127.502


def test_twelve_bits_of_sixteen_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.png", GREY.astype(np.uint16) * 16)
    with pytest.raises(Unreadable, match=r"x\.png \(its 16-bit values end below 4096, as those of 12-bit"):
        decode_file(path, AS_IS)


def test_twelve_bits_are_scaled_where_the_file_says_so(tmp_path: Path) -> None:
    path = tmp_path / "x.pgm"
    path.write_bytes(b"P5 16 16 4080\n" + (GREY.astype(np.uint16) * 16).astype(">u2").tobytes())
    np.testing.assert_array_equal(decode_file(path, AS_IS)[:, :, 0], GREY)


def test_black_stays_black(tmp_path: Path) -> None:
    assert not decode_file(saved(tmp_path / "x.png", np.zeros((16, 16), np.uint16)), AS_IS).any()


def test_white_is_zero_is_turned_round(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.tif", GREY.astype(np.uint16) * 257, tiffinfo={262: 0})
    content = path.read_bytes()
    with Image.open(io.BytesIO(content)) as image:
        assert image.tag_v2[262] == 0  # pyright: ignore[reportAttributeAccessIssue]
    np.testing.assert_array_equal(decode_file(path, AS_IS)[:, :, 0], 255 - GREY)


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (GREY.astype(np.float32) / 255, "floating-point numbers of unknown range"),
        (GREY.astype(np.int32) * 1000, "32-bit or signed integers of unknown range"),
    ],
)
def test_values_of_unknown_range_are_refused(tmp_path: Path, pixels: np.ndarray, message: str) -> None:
    path = saved(tmp_path / "x.jpg", pixels, "TIFF")
    with pytest.raises(Unreadable, match=rf"x\.jpg \(its pixels are {message}: save it with 8 bits\)"):
        decode_file(path, AS_IS)


def png(colour_type: int, rows: np.ndarray) -> io.BytesIO:
    """A PNG of 16 bits a channel, uint16 [height, width, K], which Pillow cannot write."""
    import struct
    import zlib

    height, width, _ = rows.shape
    raw = b"".join(b"\0" + row.astype(">u2").tobytes() for row in rows)
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)),
        (b"IDAT", zlib.compress(raw)),
        (b"IEND", b""),
    )
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
    return io.BytesIO(b"\x89PNG\r\n\x1a\n" + body)


@pytest.mark.parametrize(("colour_type", "alpha"), [(2, False), (6, True)])
def test_sixteen_bits_of_colour(colour_type: int, alpha: bool) -> None:
    pixels = np.concatenate([COLOUR, np.full_like(COLOUR[:, :, :1], 255)][: 1 + alpha], axis=-1)
    found = decode_image(png(colour_type, pixels.astype(np.uint16) * 257), "x", AS_IS)
    np.testing.assert_array_equal(found, COLOUR)
    with pytest.raises(Unreadable, match="12-bit images"):
        decode_image(png(colour_type, pixels.astype(np.uint16) * 16), "x", AS_IS)


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGBA", "CMYK"])
def test_eight_bit_modes_are_those_of_pillow(tmp_path: Path, mode: str) -> None:
    image = Image.fromarray(COLOUR).convert(mode)
    path = tmp_path / ("x.tif" if mode == "CMYK" else "x.png")
    image.save(path)
    np.testing.assert_array_equal(decode_file(path, AS_IS), np.asarray(image.convert("RGB")))


def test_a_palette_with_transparency_keeps_its_colours(tmp_path: Path) -> None:
    image = Image.fromarray(COLOUR).convert("P")
    image.save(tmp_path / "x.png", transparency=bytes(range(200)))
    np.testing.assert_array_equal(decode_file(tmp_path / "x.png", AS_IS), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_a_picture_in_its_transparency_alone_is_refused(tmp_path: Path, mode: str) -> None:
    image = Image.new(mode, (16, 16))
    image.putalpha(Image.fromarray(GREY))
    image.save(tmp_path / "x.png")
    with pytest.raises(Unreadable, match="all of its picture is in its transparency"):
        decode_file(tmp_path / "x.png", AS_IS)
