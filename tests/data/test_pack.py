import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from evolq_jax.cli.main import run
from evolq_jax.data import fingerprint, load_images, pack, pack_folder
from evolq_jax.errors import UserError
from evolq_jax.typing import Images, Preprocessing
from tests.data.conftest import SaveImage

PRE = Preprocessing(size=16, resize=18)


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch: pytest.MonkeyPatch) -> None:  # pyright: ignore[reportUnusedFunction]
    pytest.importorskip("array_record", reason="not there on Windows")
    monkeypatch.setattr(pack, "_SHARD_BYTES", 4000)  # of the folder's images of some 1,200 bytes


@pytest.fixture
def photos(tmp_path: Path, save_image: SaveImage) -> Path:
    """Eleven images of classes a and c, wider than high."""
    root = tmp_path / "photos"
    for seed in range(11):
        save_image(root / "ac"[seed % 2] / f"{seed}.png", seed, width=22)
    return root


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def assert_same(packed: Images, images: Images) -> None:
    assert fingerprint(packed) == fingerprint(images)  # of names and pixels
    assert (packed.labels is None) == (images.labels is None)
    np.testing.assert_array_equal(packed.labels, images.labels)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("labelled", [False, True])
def test_a_packed_folder_is_the_folder(
    photos: Path, class_index: Path, tmp_path: Path, labelled: bool
) -> None:
    index = class_index if labelled else None
    packed = pack_folder(photos, tmp_path / "packed", index)
    assert packed == (11, 4, 0)
    whole, some = (load_images(photos, PRE, class_index=index, num=num, seed=1) for num in (None, 5))
    assert_same(load_images(f"tfds:{tmp_path}/packed", PRE), whole)
    assert_same(load_images(f"tfds:{tmp_path}/packed", PRE, num=5, seed=1), some)
    sliced = load_images(f"tfds:{tmp_path}/packed:images[4:9]", PRE)
    assert sliced.names == whole.names[4:9]
    np.testing.assert_array_equal(sliced.pixels, whole.pixels[4:9])


def test_packing_gives_the_same_bytes_again(photos: Path, class_index: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        pack_folder(photos, tmp_path / name, class_index)
    one = contents(tmp_path / "one")
    assert one == contents(tmp_path / "two")
    assert [name for name in one if "array_record" not in name] == [
        "dataset_info.json",
        "features.json",
        "label.labels.txt",
        "listing.json",
    ]
    originals = [path.read_bytes() for path in sorted(photos.rglob("*.png"))]
    written = b"".join(one.values())
    for original in originals:  # a record: the features by name, since protobuf's order is another each time
        start, end = written.index(original), written.index(original) + len(original)
        assert b"file_name" in written[start - 60 : start]
        assert b"label" in written[end : end + 20]


def interrupted(photos: Path, out: Path, after: int) -> None:
    def progress(done: int, total: int) -> None:
        assert total == 11
        if done == after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pack_folder(photos, out, progress=progress)
    assert not out.exists()


@pytest.mark.parametrize(("after", "kept"), [(1, 0), (5, 1), (10, 3)])
def test_an_interrupted_start_is_continued(photos: Path, tmp_path: Path, after: int, kept: int) -> None:
    pack_folder(photos, tmp_path / "whole")
    interrupted(photos, tmp_path / "packed", after)
    assert pack_folder(photos, tmp_path / "packed") == (11, 4, kept)
    assert contents(tmp_path / "packed") == contents(tmp_path / "whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["packed", "photos", "whole"]


def test_a_changed_folder_is_packed_anew(photos: Path, tmp_path: Path, save_image: SaveImage) -> None:
    interrupted(photos, tmp_path / "packed", 10)
    save_image(photos / "a" / "0.png", 99, width=23)
    assert pack_folder(photos, tmp_path / "packed").kept_shards == 0
    assert_same(load_images(f"tfds:{tmp_path}/packed", PRE), load_images(photos, PRE))


def test_a_full_disk_leaves_nothing_whole(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fsync(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(os, "fsync", fsync)
        with pytest.raises(UserError, match=r"cannot write the data set in .*packed\.partial: No space left"):
            pack_folder(photos, tmp_path / "packed")
    assert not (tmp_path / "packed").exists()
    pack_folder(photos, tmp_path / "packed")
    assert_same(load_images(f"tfds:{tmp_path}/packed", PRE), load_images(photos, PRE))


def test_an_unreadable_file_stays_one(photos: Path, tmp_path: Path) -> None:
    (photos / "a" / "4.png").write_bytes(b"")
    pack_folder(photos, tmp_path / "packed")
    with pytest.raises(UserError, match=r"cannot read image a/4\.png"):
        load_images(f"tfds:{tmp_path}/packed", PRE)
    images = load_images(f"tfds:{tmp_path}/packed", PRE, on_corrupt="skip")
    assert_same(images, load_images(photos, PRE, on_corrupt="skip"))
    (photos / "a" / "4.png").unlink()
    (photos / "a" / "4.png").symlink_to("nowhere")
    with pytest.raises(UserError, match=r"cannot read image .*a/4\.png \(No such file"):
        pack_folder(photos, tmp_path / "other")


def test_what_is_there_is_never_overwritten(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "packed").mkdir()
    pack_folder(photos, tmp_path / "packed")
    with pytest.raises(UserError, match=r"lies in .*photos, which it would change"):
        pack_folder(photos, photos / "packed")
    assert not (photos / "packed").exists()
    with pytest.raises(UserError, match="packed exists already"):
        pack_folder(photos, tmp_path / "packed")


def test_a_damaged_listing_is_said(photos: Path, tmp_path: Path) -> None:
    pack_folder(photos, tmp_path / "packed")
    (tmp_path / "packed" / "listing.json").write_text('{"images": {"names": ["x"], "labels": null}}')
    with pytest.raises(UserError, match=r"listing\.json is damaged .*: pack the folder again"):
        load_images(f"tfds:{tmp_path}/packed", PRE)
    shutil.rmtree(tmp_path / "packed")
    pack_folder(photos, tmp_path / "packed")  # as the message says
    assert_same(load_images(f"tfds:{tmp_path}/packed", PRE), load_images(photos, PRE))


def test_the_verb(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(["pack", str(photos), "--out", str(tmp_path / "packed")])
    assert f"tfds:{tmp_path}/packed"[:40] in capsys.readouterr().out.replace("\n", "")
    with pytest.raises(UserError, match="takes no argument '--seed'"):
        run(["pack", str(photos), "--out", str(tmp_path / "other"), "--seed", "1"])
    with pytest.raises(UserError, match=r"--out"):
        run(["pack", str(photos)])


def test_without_tensorflow_datasets(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(UserError, match="pip install tensorflow-datasets"):
        pack_folder(photos, tmp_path / "packed")


def test_draws_do_not_change(photos: Path, class_index: Path, tmp_path: Path) -> None:
    expected = load_images(photos, PRE, num=4, seed=2, draw="balanced")
    pack_folder(photos, tmp_path / "without")
    pack_folder(photos, tmp_path / "with", class_index)
    for name in ("without", "with"):
        packed = load_images(f"tfds:{tmp_path / name}", PRE, num=4, seed=2, draw="balanced")
        assert packed.names == expected.names
