"""Decoded images in a file, one after the other, and where they go without the cache."""

import math
import struct
import tempfile
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np

from evolq_jax.data.decode import Decoded, OnCorrupt, decode_stream
from evolq_jax.data.source import Source
from evolq_jax.errors import UserError
from evolq_jax.typing import Progress

_HEADER_BYTES = 128
_MEMORY_BYTES = 1 << 30


def decode_uncached(
    source: Source, indices: np.ndarray, on_corrupt: OnCorrupt, progress: Progress | None
) -> Decoded:
    """Decodes the images `indices` [B] of `source` without a cache.

    Up to a GiB of images stays in memory. More images go to a nameless, memory-mapped file in the temporary
    folder. The file is gone when the images are gone.

    Raises:
        UserError: as `decode_stream`, or the file cannot be written.
    """
    if len(indices) * math.prod(source.shape) <= _MEMORY_BYTES:
        return _decode_in_memory(source, indices, on_corrupt, progress)
    try:
        with tempfile.TemporaryFile() as file:
            record = write_pixels(file, source.shape, decode_stream(source, indices, on_corrupt, progress))
            file.flush()
            shape = (len(indices) - len(record["skipped"]), *source.shape)
            pixels = np.memmap(file, np.uint8, "r", _HEADER_BYTES, shape)
    except OSError as error:
        raise UserError(
            f"cannot write decoded images of {source.where} to {tempfile.gettempdir()}: "
            f"{error.strerror or error}; set TMPDIR to a larger disk, or data.cache to a folder on one"
        ) from error
    return Decoded(pixels, tuple(record["skipped"]))


def _decode_in_memory(
    source: Source, indices: np.ndarray, on_corrupt: OnCorrupt, progress: Progress | None
) -> Decoded:
    """Decodes the images `indices` [B] of `source` into one array; raises as `decode_stream`."""
    pixels = np.empty((len(indices), *source.shape), np.uint8)
    skipped: list[int] = []
    for position, item in enumerate(decode_stream(source, indices, on_corrupt, progress)):
        if item is None:
            skipped.append(position)
        else:
            pixels[position - len(skipped)] = item
    return Decoded(pixels[: len(indices) - len(skipped)], tuple(skipped))


def write_pixels(
    file: BinaryIO, shape: tuple[int, ...], stream: Iterator[np.ndarray | None]
) -> dict[str, Any]:
    """Writes images [*shape] to an `.npy` in the order in which they come.

    Returns:
        `count`, `skipped` (the positions that were None), and the `crc32` of all pixels.
    """
    # Plain sequential writes: on a full disk they raise, where a memory map would kill the process.
    file.write(_npy_header((0, *shape)))
    skipped: list[int] = []
    count, checksum = 0, 0
    for position, item in enumerate(stream):
        if item is None:
            skipped.append(position)
            continue
        data = np.ascontiguousarray(item).data
        file.write(data)
        checksum = zlib.crc32(data, checksum)
        count += 1
    file.seek(0)
    file.write(_npy_header((count, *shape)))
    return {"count": count, "skipped": skipped, "crc32": checksum}


def _npy_header(shape: tuple[int, ...]) -> bytes:
    # Numpy's format 1.0, padded to a fixed length so that the image count can be filled in at the end.
    fields = repr({"descr": "|u1", "fortran_order": False, "shape": shape}).encode("ascii")
    prefix = b"\x93NUMPY\x01\x00" + struct.pack("<H", _HEADER_BYTES - 10)
    return prefix + fields.ljust(_HEADER_BYTES - 11) + b"\n"
