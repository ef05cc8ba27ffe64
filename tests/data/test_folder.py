import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evolq_jax.data import load_images
from evolq_jax.errors import UserError
from evolq_jax.typing import Preprocessing

AS_IS = Preprocessing(size=20, resize=None)
NAMES = ("a/1.png", "a/9.JPEG", "c/10.png", "c/2.png")


def test_files_are_sorted_and_labelled_from_the_class_index(folder: Path, class_index: Path) -> None:
    images = load_images(folder, AS_IS, class_index=class_index, cache_dir=None)
    assert images.names == NAMES
    assert images.labels is not None
    assert images.labels.dtype == np.int32
    assert images.labels.tolist() == [0, 0, 2, 2]
    assert images.pixels.dtype == np.uint8
    assert images.pixels.shape == (4, 20, 20, 3)
    for row, name in enumerate(NAMES):
        np.testing.assert_array_equal(images.pixels[row], np.asarray(Image.open(folder / name)))


def test_order_is_by_name_whatever_the_class_index(folder: Path, tmp_path: Path) -> None:
    index = tmp_path / "reversed.txt"
    index.write_text("c\nb\na\n\n")
    images = load_images(folder, AS_IS, class_index=index, cache_dir=None)
    assert images.names == NAMES == load_images(folder, AS_IS, cache_dir=None).names
    assert images.labels is not None
    assert images.labels.tolist() == [2, 2, 0, 0]


def test_without_class_index_there_are_no_labels(folder: Path) -> None:
    assert load_images(folder, AS_IS, cache_dir=None).labels is None
    flat = load_images(folder / "c", AS_IS, cache_dir=None)
    assert flat.names == ("10.png", "2.png")


def test_other_files_are_passed_over_and_counted(
    folder: Path, class_index: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "readme.txt").write_text("no image")
    (folder / "a" / "list.csv").write_text("no image")
    (folder / "a" / "._1.png").write_text("a hidden file")
    shutil.copytree(folder / "a", folder / ".thumbnails")
    shutil.copytree(folder / "a", folder / "a" / "deeper.png")
    (folder / "class without images").mkdir()
    os.mkfifo(folder / "c" / "pipe.png")
    for _ in range(2):
        assert load_images(folder, AS_IS, class_index=class_index, cache_dir=None).names == NAMES
    assert [record.message for record in caplog.records] == [
        f"{folder}: passed over 1 .csv files, 1 .txt files, 1 folders inside class folders, 1 pipes or "
        "devices; 4 images are used"
    ]


@pytest.mark.parametrize("ending", ["jpg", "jpeg", "png", "ppm", "bmp", "pgm", "tif", "tiff", "webp", "TIF"])
def test_the_endings_of_image_folders_are_read(tmp_path: Path, ending: str) -> None:
    Image.new("L" if ending == "pgm" else "RGB", (20, 20), 77).save(tmp_path / f"x.{ending}")
    assert load_images(tmp_path, AS_IS, cache_dir=None).names == (f"x.{ending}",)


def test_a_link_to_a_pipe_is_unreadable(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "z.png").symlink_to("pipe")
    with pytest.raises(UserError, match=r"cannot read image .*z\.png \(it is a pipe, a device or a socket"):
        load_images(tmp_path, AS_IS, cache_dir=None)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def break_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


@pytest.mark.parametrize("damage", [truncate, empty, break_link])
@pytest.mark.parametrize("name", ["a/9.JPEG", "c/10.png"])
def test_unreadable_image(
    folder: Path,
    class_index: Path,
    caplog: pytest.LogCaptureFixture,
    damage: Callable[[Path], None],
    name: str,
) -> None:
    damage(folder / name)
    with pytest.raises(UserError, match=rf"cannot read image .*{name} \(.+\); .*on_corrupt"):
        load_images(folder, AS_IS, cache_dir=None)
    kept = [other for other in NAMES if other != name]
    images = load_images(folder, AS_IS, class_index=class_index, cache_dir=None, on_corrupt="skip")
    assert images.skipped == (name,)
    assert images.names == tuple(kept)
    assert images.labels is not None
    assert images.labels.tolist() == [0 if other.startswith("a") else 2 for other in kept]
    for row, other in enumerate(kept):
        np.testing.assert_array_equal(images.pixels[row], np.asarray(Image.open(folder / other)))
    assert f"left out 1 unreadable of 4 images: {name}" in caplog.text


def test_nothing_readable_is_an_error(folder: Path) -> None:
    for name in NAMES:
        empty(folder / name)
    with pytest.raises(UserError, match=r"none of the 4 images of .* can be read"):
        load_images(folder, AS_IS, cache_dir=None, on_corrupt="skip")


def test_too_small_an_image_is_no_corrupt_one(folder: Path, save_image: Callable[..., None]) -> None:
    save_image(folder / "a" / "5.png", 7, width=19)
    with pytest.raises(UserError, match=r"a/5\.png is 19x20, smaller"):
        load_images(folder, AS_IS, cache_dir=None, on_corrupt="skip")


def test_unknown_class_is_named(folder: Path, class_index: Path) -> None:
    (folder / "c").rename(folder / "dog")
    with pytest.raises(UserError, match=r"unknown class 'dog': .*3 classes of class_index .*classes\.txt"):
        load_images(folder, AS_IS, class_index=class_index)


def test_labels_need_class_folders(folder: Path, class_index: Path) -> None:
    with pytest.raises(UserError, match=r"10\.png lies outside a class folder"):
        load_images(folder / "c", AS_IS, class_index=class_index)


def test_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no images in"):
        load_images(tmp_path, AS_IS)


def test_missing_folder_gets_a_suggestion(folder: Path) -> None:
    with pytest.raises(UserError, match=r"does not exist .*did you mean '.*images'"):
        load_images(str(folder) + "x", AS_IS)
