import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from evolq_jax.data import cache, load_images
from evolq_jax.data.decode import OnCorrupt
from evolq_jax.errors import UserError
from evolq_jax.typing import Images, Preprocessing

PRE = Preprocessing(size=16, resize=18)


def load(
    folder: Path,
    cache_dir: Path,
    preprocessing: Preprocessing = PRE,
    on_corrupt: OnCorrupt = "error",
    num: int | None = None,
) -> tuple[Images, int]:
    """The images, and how many were decoded for them."""
    seen: list[tuple[int, int]] = []
    images = load_images(
        folder,
        preprocessing,
        cache_dir=cache_dir,
        on_corrupt=on_corrupt,
        num=num,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(done + 1, len(seen)) for done in range(len(seen))]
    return images, len(seen)


def files(folder: Path) -> list[str]:
    return sorted(path.suffix for path in folder.iterdir())


def test_images_are_decoded_once(folder: Path, tmp_path: Path) -> None:
    plain = load_images(folder, PRE, cache_dir=None)
    first, num_first = load(folder, tmp_path / "cache")
    second, num_second = load(folder, tmp_path / "cache")
    assert (num_first, num_second) == (4, 0)
    assert isinstance(second.pixels, np.memmap)
    assert second.names == first.names == plain.names
    np.testing.assert_array_equal(first.pixels, plain.pixels)
    np.testing.assert_array_equal(second.pixels, plain.pixels)
    assert files(tmp_path / "cache") == [".json", ".npy"]


def test_only_the_subset_is_decoded(folder: Path, tmp_path: Path) -> None:
    some, num = load(folder, tmp_path / "cache", num=2)
    assert (num, len(some.pixels)) == (2, 2)
    assert load(folder, tmp_path / "cache", num=3)[1] == 3


def test_default_folder_is_evolq_cache(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVOLQ_CACHE", str(tmp_path / "elsewhere"))
    load_images(folder, PRE)
    assert files(tmp_path / "elsewhere") == [".json", ".npy"]
    monkeypatch.delenv("EVOLQ_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache.default_cache_dir() == tmp_path / ".cache" / "evolq_jax"


@pytest.mark.parametrize(
    ("preprocessing", "decoded"),
    [
        (Preprocessing(size=16, resize=17), 4),
        (Preprocessing(size=16, resize=18, interpolation="bilinear"), 4),
        (Preprocessing(size=16, resize=18, mean=(0.1, 0.2, 0.3)), 0),
    ],
)
def test_what_decides_the_pixels_is_in_the_key(
    folder: Path, tmp_path: Path, preprocessing: Preprocessing, decoded: int
) -> None:
    load(folder, tmp_path / "cache")
    assert load(folder, tmp_path / "cache", preprocessing)[1] == decoded


def test_a_changed_file_is_decoded_again(
    folder: Path, tmp_path: Path, save_image: Callable[..., None]
) -> None:
    before, _ = load(folder, tmp_path / "cache")
    path = folder / "c" / "2.png"
    stat = path.stat()
    save_image(path, 99)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    after, num = load(folder, tmp_path / "cache")
    assert num == 4
    np.testing.assert_array_equal(after.pixels[:3], before.pixels[:3])
    assert (after.pixels[3] != before.pixels[3]).any()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [cut, flip, empty, Path.unlink])
@pytest.mark.parametrize("suffix", [".npy", ".json"])
def test_a_damaged_entry_is_rebuilt(
    folder: Path, tmp_path: Path, damage: Callable[[Path], None], suffix: str
) -> None:
    first, _ = load(folder, tmp_path / "cache")
    expected = np.array(first.pixels)
    del first
    damage(next((tmp_path / "cache").glob(f"*{suffix}")))
    rebuilt, num = load(folder, tmp_path / "cache")
    assert num == 4
    np.testing.assert_array_equal(rebuilt.pixels, expected)
    assert load(folder, tmp_path / "cache")[1] == 0


def test_damage_is_logged(folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    load(folder, tmp_path / "cache")
    assert not caplog.records
    cut(next((tmp_path / "cache").glob("*.npy")))
    load(folder, tmp_path / "cache")
    assert "is damaged" in caplog.text


def test_an_unwritable_cache_says_how_to_go_without(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(UserError, match=r"cannot write the image cache .*--data.cache None to go without"):
        load(folder, tmp_path / "cache")


def test_a_full_disk_leaves_nothing(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fsync(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache.os, "fsync", fsync)
    with pytest.raises(UserError, match="No space left"):
        load(folder, tmp_path / "cache")
    assert files(tmp_path / "cache") == []


def test_a_failed_decode_leaves_nothing(folder: Path, tmp_path: Path) -> None:
    empty(folder / "c" / "2.png")
    with pytest.raises(UserError, match="cannot read image"):
        load(folder, tmp_path / "cache")
    assert files(tmp_path / "cache") == []


def test_skipped_images_are_remembered_but_stay_errors(folder: Path, tmp_path: Path) -> None:
    empty(folder / "a" / "9.JPEG")
    first, num_first = load(folder, tmp_path / "cache", on_corrupt="skip")
    again, num_again = load(folder, tmp_path / "cache", on_corrupt="skip")
    assert (num_first, num_again) == (4, 0)
    assert first.skipped == again.skipped == ("a/9.JPEG",)
    assert first.names == again.names == ("a/1.png", "c/10.png", "c/2.png")
    plain = load_images(folder, PRE, cache_dir=None, on_corrupt="skip")
    np.testing.assert_array_equal(again.pixels, plain.pixels)
    with pytest.raises(UserError, match=r"cannot read image .*9\.JPEG"):
        load(folder, tmp_path / "cache")


def test_temporary_files_of_a_killed_run_are_removed_later(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    old, young = (tmp_path / "cache" / f"images-{name}.npy.1.tmp" for name in ("old", "young"))
    for path in (old, young):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    load(folder, tmp_path / "cache")
    assert not old.exists()
    assert young.exists()


def test_several_writers_at_once(folder: Path, tmp_path: Path) -> None:
    expected = load_images(folder, PRE, cache_dir=None).pixels
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda _: load(folder, tmp_path / "cache")[0], range(16)))
    for images in results:
        np.testing.assert_array_equal(images.pixels, expected)
    assert files(tmp_path / "cache") == [".json", ".npy"]
