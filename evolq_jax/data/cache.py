"""Decoded images on disk: an uncompressed, memory-mapped `.npy` and a `.json` with its checksum.

An entry's name is a hash of everything that decides its bytes, so entries never become stale. The folder has
a size limit: the entry that was not used for longest makes room. Files are written under temporary names and
then renamed. So a kill or a second process can only leave complete entries.
"""

import hashlib
import json
import logging
import math
import os
import time
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import PIL

from evolq_jax.data.decode import Decoded, OnCorrupt, decode_stream
from evolq_jax.data.pixel_file import decode_uncached, write_pixels
from evolq_jax.data.source import Source
from evolq_jax.errors import UserError
from evolq_jax.notes import say_once
from evolq_jax.paths import atomic, has_home, user_path
from evolq_jax.typing import Preprocessing, Progress

FORMAT_VERSION = 2  # raise it when decoding or the entry's layout changes
_CHUNK_BYTES = 1 << 24
_ORPHAN_SECONDS = 24 * 3600
ELSEWHERE = (
    "set EVOLQ_CACHE or --data.cache to a writable folder on another disk, or --data.cache None to go "
    "without (cache_dir from Python)"
)
_WORTH_A_LINE = 1 << 25  # bytes
_log = logging.getLogger(__name__)


def default_cache_dir() -> Path | None:
    """`$EVOLQ_CACHE` if it is set, otherwise `~/.cache/evolq_jax`. Without a home: None, and a line."""
    given = os.environ.get("EVOLQ_CACHE")
    if not given and not has_home():
        say_once(
            "there is no home folder, so decoded images are not kept: set EVOLQ_CACHE to a folder for them"
        )
        return None
    return user_path(given or "~/.cache/evolq_jax", "the image cache (EVOLQ_CACHE)")


def cached_decode(
    source: Source,
    indices: np.ndarray,
    preprocessing: Preprocessing,
    cache_dir: Path,
    *,
    on_corrupt: OnCorrupt,
    progress: Progress | None = None,
    max_bytes: float = math.inf,
) -> Decoded:
    """The images `indices` [B] of `source` from the cache. What is not there is decoded into it first.

    A damaged entry is built again. An entry without the unreadable images is used for `on_corrupt="skip"`
    only. Images that need more than `max_bytes` are not kept; otherwise older entries make room for them.

    Returns:
        The decoded images; `pixels` is memory-mapped, read-only.

    Raises:
        UserError: as `decode_stream`, or the cache cannot be written.
    """
    path = cache_dir / f"images-{entry_key(source, indices, preprocessing)}.npy"
    entry = _load_entry(path, source.shape, len(indices))
    if entry is not None and (on_corrupt == "skip" or not entry.skipped):
        with suppress(OSError):
            os.utime(path.with_suffix(".json"))  # the time of last use
        return entry
    size = len(indices) * math.prod(source.shape)
    if size > max_bytes:
        _log.warning(
            "%s takes %.1f GiB decoded, more than the cache may hold: decoding it without",
            source.where,
            size / 2**30,
        )
        return decode_uncached(source, indices, on_corrupt, progress)
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        _remove_orphans(cache_dir)
        _make_room(cache_dir, path, max_bytes - size)
        _build_entry(path, source, decode_stream(source, indices, on_corrupt, progress))
    except OSError as error:
        raise UserError(
            f"cannot write the image cache in {cache_dir}: {error.strerror or error}; {ELSEWHERE}"
        ) from error
    if size >= _WORTH_A_LINE:
        say_once(
            f"{size / 1e6:,.0f} MB of decoded images are kept in {cache_dir}, so the next run need not "
            "decode them; --data.cache None (cache_dir=None from Python) keeps none"
        )
    entry = _load_entry(path, source.shape, len(indices))
    if entry is None:
        raise UserError(f"the image cache {path} does not read back as written; {ELSEWHERE}")
    return entry


def entry_key(source: Source, indices: np.ndarray, preprocessing: Preprocessing) -> str:
    """A hash over the chosen images' files (path, size, time of change) and over how they are decoded.

    Mean and standard deviation do not count, because normalisation comes later.
    """
    how = [
        FORMAT_VERSION,
        PIL.__version__,
        preprocessing.size,
        preprocessing.resize,
        preprocessing.interpolation,
        preprocessing.crop_mode,
    ]
    stamps = [source.stamp(int(index)) for index in indices]
    # surrogateescape'd file names are not valid UTF-8; JSON's ASCII escapes carry them.
    return hashlib.sha256(json.dumps([how, stamps]).encode()).hexdigest()[:32]


def _build_entry(path: Path, source: Source, stream: Iterator[np.ndarray | None]) -> None:
    with atomic(path) as pixels_file, atomic(path.with_suffix(".json")) as record_file:
        record = write_pixels(pixels_file, source.shape, stream)
        record_file.write(json.dumps(record).encode())


def _remove_orphans(cache_dir: Path) -> None:
    # A killed process leaves its temporary files; young ones may belong to a process at work.
    for temporary in cache_dir.glob("images-*.tmp"):
        with suppress(OSError):
            if time.time() - temporary.stat().st_mtime > _ORPHAN_SECONDS:
                temporary.unlink()


def _make_room(cache_dir: Path, keep: Path, max_bytes: float) -> None:
    """Removes entries, the least recently used first, until the others have at most `max_bytes`.

    A process that has mapped an entry can go on using it: a removed file lives as long as it is open.
    """
    held = [_Held.of(path) for path in cache_dir.glob("images-*.npy") if path != keep]
    total = sum(entry.size for entry in held)
    for entry in sorted(held, key=lambda entry: entry.last_use):
        if total <= max_bytes:
            return
        with suppress(OSError):
            entry.path.with_suffix(".json").unlink(missing_ok=True)
            entry.path.unlink(missing_ok=True)
            total -= entry.size


class _Held(NamedTuple):
    path: Path
    size: int
    last_use: float

    @classmethod
    def of(cls, path: Path) -> "_Held":
        try:
            pixels = path.stat()
        except OSError:  # another process has removed it just now
            return cls(path, 0, math.inf)
        record = path.with_suffix(".json")
        # Without its record it is what an interrupted removal has left: nobody uses it.
        return cls(path, pixels.st_size, record.stat().st_mtime if record.exists() else 0.0)


def _load_entry(path: Path, shape: tuple[int, ...], num_asked: int) -> Decoded | None:
    """The entry if it is there and complete, otherwise None."""
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
