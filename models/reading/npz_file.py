"""`.npz` files, whose headers are read before any array is unpacked."""

import math
import zipfile
import zlib
from pathlib import Path

import jax.numpy as jnp
import numpy as np

# Trained weights hardly shrink when they are packed. A file whose arrays take more is no checkpoint.
MAX_EXPANSION = 20
ALWAYS_BYTES = 64 * 2**20  # unpacked, whatever the size of the file


def read_npz(file: Path) -> dict[str, np.ndarray]:
    """All arrays of an `.npz` file, by key. Nothing is unpickled.

    Two-byte values without a type are bfloat16, which numpy writes so.

    Raises:
        ValueError: the file is damaged, a member is no array, or its arrays would take more than
            `MAX_EXPANSION` times the size of the file and more than `ALWAYS_BYTES`.
        OSError: the file cannot be read.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            needed = sum(_check_member(archive, member) for member in members)
            allowed = max(ALWAYS_BYTES, MAX_EXPANSION * file.stat().st_size)
            if needed > allowed:
                raise ValueError(f"its arrays take {needed} bytes unpacked, more than {allowed}")
            return {member.filename.removesuffix(".npy"): _read(archive, member) for member in members}
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise ValueError(str(error)) from None


def _check_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> int:
    """The bytes of a member's array, by its header, which must agree with the archive's table."""
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{member.filename} is packed in another way than numpy packs")
    with archive.open(member) as stream:
        try:
            version = np.lib.format.read_magic(stream)
            header = np.lib.format.read_array_header_1_0 if version == (1, 0) else _header_2_0
            shape, _, dtype = header(stream)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{member.filename} is no array: {error}") from None
        if dtype.hasobject:
            raise ValueError(f"{member.filename} holds Python objects, which are not read")
        size = math.prod(shape) * dtype.itemsize
        held = member.file_size - stream.tell()
        if min(shape, default=0) < 0 or size != held:
            raise ValueError(f"{member.filename} claims an array of {size} bytes and holds {held}")
    return size


def _header_2_0(stream: object) -> tuple[tuple[int, ...], bool, np.dtype]:
    return np.lib.format.read_array_header_2_0(stream)  # pyright: ignore[reportArgumentType]


def _read(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    with archive.open(member) as stream:
        array = np.lib.format.read_array(stream, allow_pickle=False)
    return array.view(jnp.bfloat16) if array.dtype == np.dtype("V2") else array
