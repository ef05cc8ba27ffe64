"""Decoded images on disk: an uncompressed `.npy`, memory-mapped, and a `.json` that vouches for it.

An entry's name is a hash of all that decides its bytes, so entries never go stale; no entry is ever removed:
delete the folder to empty the cache. Files are written under temporary names and renamed, so that a kill
or a second process leaves whole entries only.
"""

import hashlib
import json
import logging
import os
import struct
import time
import uuid
import zlib
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np
import PIL

from evolq_jax.data.decode import Decoded, OnCorrupt, Progress, decode_stream
from evolq_jax.data.source import Source
from evolq_jax.errors import UserError
from evolq_jax.typing import Preprocessing

FORMAT_VERSION = 1  # raise it when decoding or the entry's layout changes
_HEADER_BYTES = 128
_CHUNK_BYTES = 1 << 24
_ORPHAN_SECONDS = 24 * 3600
_log = logging.getLogger(__name__)


def default_cache_dir() -> Path:
    """`$EVOLQ_CACHE` where set, otherwise `~/.cache/evolq_jax`."""
    return Path(os.path.expanduser(os.environ.get("EVOLQ_CACHE") or "~/.cache/evolq_jax"))


def cached_decode(
    source: Source,
    indices: np.ndarray,
    preprocessing: Preprocessing,
    cache_dir: Path,
    on_corrupt: OnCorrupt,
    progress: Progress | None,
) -> Decoded:
    """The images `indices` [B] of `source` from the cache, decoded into it first where they are not there.

    A damaged entry is rebuilt. An entry that lacks unreadable images serves `on_corrupt="skip"` only.

    Returns:
        The decoded images; `pixels` is memory-mapped, read-only.

    Raises:
        UserError: as `decode_stream`, or if the cache cannot be written.
    """
    path = cache_dir / f"images-{entry_key(source, indices, preprocessing)}.npy"
    entry = _load_entry(path, source.shape, len(indices))
    if entry is not None and (on_corrupt == "skip" or not entry.skipped):
        return entry
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        _remove_orphans(cache_dir)
        _build_entry(path, source, decode_stream(source, indices, on_corrupt, progress))
    except OSError as error:
        raise UserError(
            f"cannot write the image cache in {cache_dir}: {error.strerror or error}; "
            "set EVOLQ_CACHE or cache_dir to a writable folder, or cache_dir to None to go without"
        ) from error
    entry = _load_entry(path, source.shape, len(indices))
    if entry is None:
        raise UserError(
            f"the image cache {path} does not read back as written; set cache_dir to another disk or to None"
        )
    return entry


def entry_key(source: Source, indices: np.ndarray, preprocessing: Preprocessing) -> str:
    """Hash over the chosen images' files (path, size, time of change) and how they are decoded.

    Mean and standard deviation are left out: normalisation happens later.
    """
    how = [
        FORMAT_VERSION,
        PIL.__version__,
        preprocessing.size,
        preprocessing.resize,
        preprocessing.interpolation,
    ]
    stamps = [source.stamp(int(index)) for index in indices]
    # surrogateescape'd file names are not valid UTF-8; JSON's ASCII escapes carry them.
    return hashlib.sha256(json.dumps([how, stamps]).encode()).hexdigest()[:32]


def _build_entry(path: Path, source: Source, stream: Iterator[np.ndarray | None]) -> None:
    with atomic(path) as pixels_file, atomic(path.with_suffix(".json")) as record_file:
        record = _write_pixels(pixels_file, source.shape, stream)
        record_file.write(json.dumps(record).encode())


def _write_pixels(
    file: BinaryIO, shape: tuple[int, ...], stream: Iterator[np.ndarray | None]
) -> dict[str, object]:
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


def _remove_orphans(cache_dir: Path) -> None:
    # A killed process leaves its temporary files; young ones may belong to a process at work.
    for temporary in cache_dir.glob("images-*.tmp"):
        with suppress(OSError):
            if time.time() - temporary.stat().st_mtime > _ORPHAN_SECONDS:
                temporary.unlink()


@contextmanager
def atomic(path: Path) -> Generator[BinaryIO, None, None]:
    """A new file that gets its name only once it is whole and on disk."""
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _load_entry(path: Path, shape: tuple[int, ...], num_asked: int) -> Decoded | None:
    """The entry if it is there and whole, otherwise None."""
    try:
        record = json.loads(path.with_suffix(".json").read_bytes())
        pixels = np.load(path, mmap_mode="r", allow_pickle=False)
        skipped = tuple(int(position) for position in record["skipped"])
        count = num_asked - len(skipped)
        if record["count"] != count or pixels.shape != (count, *shape) or pixels.dtype != np.uint8:
            raise ValueError("its shape is not the one expected")
        if _checksum(pixels) != record["crc32"]:
            raise ValueError("its checksum is wrong")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, EOFError, KeyError, TypeError) as error:
        _log.warning("image cache %s is damaged (%s): decoding again", path, error)
        return None
    return Decoded(pixels, skipped)


def _checksum(pixels: np.ndarray) -> int:
    flat = pixels.reshape(-1)
    checksum = 0
    for start in range(0, flat.size, _CHUNK_BYTES):
        checksum = zlib.crc32(flat[start : start + _CHUNK_BYTES].data, checksum)
    return checksum
