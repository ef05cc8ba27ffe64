import sys
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evolq_jax.data import digits, load_images
from evolq_jax.errors import UserError
from evolq_jax.typing import Preprocessing

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 12, 12, 3), dtype=np.uint8)
LABELS = np.array([3, 1, 4, 1, 5], dtype=np.uint8)
AS_IS = Preprocessing(size=12, resize=None)
DIGIT = Preprocessing(size=8, resize=None)


def saved(folder: Path, **arrays: np.ndarray) -> Path:
    path = folder / "set.npz"
    np.savez(path, allow_pickle=False, **arrays)
    return path


def test_arrays_of_the_right_size_are_used_as_they_are(tmp_path: Path) -> None:
    images = load_images(saved(tmp_path, image=PIXELS, label=LABELS), AS_IS)
    np.testing.assert_array_equal(images.pixels, PIXELS)
    assert images.labels is not None
    assert images.labels.dtype == np.int32
    assert images.labels.tolist() == LABELS.tolist()
    assert images.names[3] == "set.npz[3]"
    assert not (tmp_path / "default_cache").exists()


def test_labels_are_optional_and_subsets_keep_their_rows(tmp_path: Path) -> None:
    path = saved(tmp_path, image=PIXELS)
    assert load_images(path, AS_IS).labels is None
    some = load_images(saved(tmp_path, image=PIXELS, label=LABELS), AS_IS, num=3, seed=1)
    rows = [int(name[len("set.npz[") : -1]) for name in some.names]
    np.testing.assert_array_equal(some.pixels, PIXELS[rows])
    assert some.labels is not None
    assert some.labels.tolist() == LABELS[rows].tolist()


@pytest.mark.parametrize("cache_dir", ["auto", None])
def test_arrays_of_another_size_are_resized(tmp_path: Path, cache_dir: str | None) -> None:
    preprocessing = Preprocessing(size=24, resize=None, interpolation="bilinear")
    images = load_images(saved(tmp_path, image=PIXELS), preprocessing, cache_dir=cache_dir)
    expected = [
        np.asarray(Image.fromarray(image).resize((24, 24), Image.Resampling.BILINEAR)) for image in PIXELS
    ]
    np.testing.assert_array_equal(images.pixels, expected)


def test_a_packed_folder_gives_the_folder_s_pixels(tmp_path: Path) -> None:
    preprocessing = Preprocessing(size=7, resize=9)
    for row, image in enumerate(PIXELS):
        Image.fromarray(image).save(tmp_path / f"{row}.png")
    from_files = load_images(tmp_path, preprocessing)
    from_array = load_images(saved(tmp_path, image=PIXELS), preprocessing)
    np.testing.assert_array_equal(from_array.pixels, from_files.pixels)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": PIXELS}, "no array 'image' .*has: images.*did you mean 'images'"),
        ({"image": PIXELS.astype(np.float32)}, r"must be uint8 \[B, .*got float32 \[5, 12, 12, 3\]"),
        ({"image": PIXELS[0]}, r"must be uint8 .*got uint8 \[12, 12, 3\]"),
        ({"image": PIXELS.transpose(0, 3, 1, 2)}, r"got uint8 \[5, 3, 12, 12\]"),
        ({"image": PIXELS[:0]}, r"got uint8 \[0, 12, 12, 3\]"),
        ({"image": PIXELS, "label": LABELS[:4]}, r"'label' must be integers \[5\].*got uint8 \[4\]"),
        ({"image": PIXELS, "label": LABELS.astype(float)}, "'label' must be integers .*got float64"),
    ],
)
def test_wrong_arrays_are_refused(tmp_path: Path, arrays: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_images(saved(tmp_path, **arrays), AS_IS)


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04 torn"])
def test_damaged_npz(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "set.npz"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"cannot read .*set\.npz as \.npz"):
        load_images(path, AS_IS)


def test_npz_with_a_damaged_member(tmp_path: Path) -> None:
    path = saved(tmp_path, image=PIXELS)
    content = bytearray(path.read_bytes())
    content[1000] ^= 255
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"cannot read .*set\.npz as \.npz"):
        load_images(path, AS_IS)


def test_objects_are_never_unpickled(tmp_path: Path) -> None:
    path = tmp_path / "set.npz"
    np.savez(path, image=np.array([{"a": 1}], dtype=object))
    with pytest.raises(UserError, match=r"cannot read .* as \.npz"):
        load_images(path, AS_IS)


def test_a_single_array_is_no_npz(tmp_path: Path) -> None:
    with (tmp_path / "set.npz").open("wb") as file:
        np.save(file, PIXELS)
    with pytest.raises(UserError, match="single array"):
        load_images(tmp_path / "set.npz", AS_IS)


def test_class_index_is_for_folders(tmp_path: Path, class_index: Path) -> None:
    with pytest.raises(UserError, match="class_index is for folders"):
        load_images(saved(tmp_path, image=PIXELS), AS_IS, class_index=class_index)


def test_digits_split() -> None:
    pytest.importorskip("sklearn")
    train, test = load_images("digits:train", DIGIT), load_images("digits:test", DIGIT)
    assert train.pixels.shape == (1100, 8, 8, 1)
    assert test.pixels.shape == (697, 8, 8, 1)
    assert not set(train.names) & set(test.names)
    assert set(train.names) | set(test.names) == {f"digits[{i}]" for i in range(1797)}
    assert train.labels is not None
    assert test.labels is not None
    shares = np.bincount(train.labels) / (np.bincount(train.labels) + np.bincount(test.labels))
    np.testing.assert_allclose(shares, 1100 / 1797, atol=0.006)  # 174..183 images a class
    # The very split: reported numbers depend on it.
    assert zlib.crc32(" ".join(train.names).encode()) == 1001055214


def test_digits_pixels_and_labels_are_scikit_learns() -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    values, labels = datasets.load_digits(return_X_y=True)
    images = load_images("digits:test", DIGIT)
    rows = [int(name[len("digits[") : -1]) for name in images.names]
    assert images.labels is not None
    assert images.labels.tolist() == labels[rows].tolist()
    assert images.pixels.max() == 255
    np.testing.assert_array_equal(np.rint(images.pixels.reshape(-1, 64) / 255 * 16), values[rows])


def test_digits_without_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    digits.read_digits.cache_clear()
    with pytest.raises(UserError, match="need scikit-learn: pip install"):
        load_images("digits:train", DIGIT)


def test_misspelt_digits() -> None:
    with pytest.raises(UserError, match=r"digits:trian does not exist .*did you mean 'digits:train'"):
        load_images("digits:trian", DIGIT)


@pytest.mark.parametrize(
    ("member", "message"),
    [
        (b"no array", "its 'image' is no array"),
        (
            b"\x93NUMPY\x01\x00v\x00"
            + b"{'descr': '|u1', 'fortran_order': False, 'shape': (1000000000000, 60, 50, 1), }".ljust(117)
            + b"\n",
            r"cannot read .* as \.npz: ",
        ),
    ],
)
def test_members_that_are_no_arrays_or_claim_petabytes(tmp_path: Path, member: bytes, message: str) -> None:
    with zipfile.ZipFile(tmp_path / "set.npz", "w") as archive:
        archive.writestr("image" if member == b"no array" else "image.npy", member)
    with pytest.raises(UserError, match=message):
        load_images(tmp_path / "set.npz", AS_IS)
