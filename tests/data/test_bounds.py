"""Sets larger than what may be held: on disk in the cache, and in memory."""

import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from evolq_jax.data import fingerprint, load_images, pixel_file
from evolq_jax.data.cache import cached_decode
from evolq_jax.data.decode import Decoded
from evolq_jax.data.pixel_file import decode_uncached
from evolq_jax.data.source import Source, Unreadable
from evolq_jax.data.threads import in_order
from evolq_jax.errors import UserError
from evolq_jax.typing import Images, Preprocessing

SIZE, COUNT = 48, 4000  # of some 7 kB, 28 MB in all
MIB = 1 << 20


def made_up(count: int, missing: int | None = None) -> Source:
    """Images of noise; one can be missing."""

    def decode(row: int) -> np.ndarray:
        if row == missing:
            raise Unreadable("gone")
        return np.random.default_rng(row).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)

    names = tuple(f"{row}.png" for row in range(count))
    return Source("made up", names, (SIZE, SIZE, 3), decode, lambda row: [row])


def peak_bytes(function: Callable[[], object]) -> int:
    """The most memory that Python and numpy held during a call; mapped files do not count."""
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("cached", [False, True])
def test_a_large_set_streams(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cached: bool) -> None:
    monkeypatch.setattr(pixel_file, "_MEMORY_BYTES", MIB)
    source, rows = made_up(COUNT), np.arange(COUNT)
    found: list[Images] = []

    def read_all() -> None:
        decoded = (
            cached_decode(source, rows, Preprocessing(SIZE, None), tmp_path, on_corrupt="error")
            if cached
            else decode_uncached(source, rows, "error", None)
        )
        images = Images(decoded.pixels, None, source.names)
        fingerprint(images)
        found.append(images)

    assert peak_bytes(read_all) < 8 * MIB  # 256 images wait at most, 256 are hashed at once
    assert isinstance(found[0].pixels, np.memmap)
    for row in (0, 1, COUNT // 2, COUNT - 1):
        np.testing.assert_array_equal(found[0].pixels[row], source.decode(row))


@pytest.mark.parametrize("missing", [None, 0, 3])
def test_a_file_without_a_name_holds_what_memory_would(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: int | None
) -> None:
    def decoded() -> Decoded:
        return decode_uncached(made_up(7, missing), np.array([0, 2, 3, 6]), "skip", None)

    expected = decoded()
    monkeypatch.setattr(pixel_file, "_MEMORY_BYTES", 0)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    streamed = decoded()
    np.testing.assert_array_equal(streamed.pixels, expected.pixels)
    assert streamed.skipped == expected.skipped == (() if missing is None else ((0, 2)[missing // 3],))
    assert [*tmp_path.iterdir()] == []
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    with pytest.raises(
        UserError, match=r"cannot write decoded images .*missing.*: set TMPDIR|.*; set TMPDIR"
    ):
        decoded()


def entries(folder: Path) -> set[str]:
    return {path.stem for path in folder.glob("*.npy")}


def test_what_was_not_used_for_longest_makes_room(folder: Path, tmp_path: Path) -> None:
    cache, bound = tmp_path / "cache", 4200 / 2**30  # an image of 12 x 12 takes 432 bytes, a file 128 more

    def load(num: int, size: int = 12) -> str:
        """The entry's name; it counts as used an hour after what was used before."""
        before = entries(cache)
        images = load_images(
            folder, Preprocessing(size, 20), num=num, seed=None, cache_dir=cache, cache_gib=bound
        )
        assert len(images.pixels) == num
        for path in cache.glob("*.json"):
            stat = path.stat()
            os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns - 3600 * 10**9))
        return next(iter(entries(cache) - before), "")

    one, two, three = load(1), load(2), load(3)
    assert entries(cache) == {one, two, three}
    assert load(1) == ""  # used again, so that the second is now the oldest
    four = load(4)
    assert entries(cache) == {one, three, four}
    assert load(4, size=20) == ""  # larger than the bound: decoded, but not kept
    assert entries(cache) == {one, three, four}
    assert {path.suffix for path in cache.iterdir()} == {".npy", ".json"}
    assert len(list(cache.glob("*.json"))) == 3


def test_removed_entries_can_still_be_read(folder: Path, tmp_path: Path) -> None:
    def load(num: int) -> Images:
        return load_images(folder, Preprocessing(12, 20), num=num, cache_dir=tmp_path / "c", cache_gib=2e-6)

    first = load(3)
    expected = np.array(first.pixels)
    load(4)
    assert len(entries(tmp_path / "c")) == 1
    np.testing.assert_array_equal(first.pixels, expected)


def test_threads_work_ahead_in_order_and_no_further() -> None:
    begun: list[int] = []

    def double(item: int) -> int:
        begun.append(item)
        if item == 30:
            raise ValueError("thirty")
        return 2 * item

    results = in_order(double, range(100), ahead=5)
    assert [next(results) for _ in range(3)] == [0, 2, 4]
    assert len(begun) <= 3 + 5
    with pytest.raises(ValueError, match="thirty"):
        list(results)
    assert len(begun) <= 31 + 5
    assert [*in_order(double, range(20), ahead=5)] == [*range(0, 40, 2)]
