import io
import os
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from evolq_jax.data import load_images
from evolq_jax.errors import UserError
from evolq_jax.notes import say_once
from evolq_jax.typing import Preprocessing
from tests.data.tfds_sets import prepare

AS_IS = Preprocessing(size=20, resize=None)
PIXELS = np.random.default_rng(0).integers(0, 256, (9, 20, 24, 3), dtype=np.uint8)
LABELS = [2, 0, 1, 1, 0, 2, 2, 0, 1]


def png(pixels: np.ndarray) -> io.BytesIO:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    file.seek(0)
    return file


def rgb(features: Any) -> Any:
    image = features.Image(shape=(None, None, 3))
    return features.FeaturesDict({"image": image, "label": features.ClassLabel(num_classes=3)})


def examples(rows: range) -> Iterator[dict[str, Any]]:
    return ({"image": png(PIXELS[row]), "label": LABELS[row]} for row in rows)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`tiny_set` with 7 training and 2 test images."""
    path = tmp_path_factory.mktemp("tensorflow_datasets")
    prepare(path, {"train": examples(range(7)), "test": examples(range(7, 9))}, rgb)
    return path


@pytest.mark.parametrize(
    ("source", "rows", "names"),
    [
        ("tiny_set:train", range(7), [f"train[{row}]" for row in range(7)]),
        ("tiny_set:1.0.0:test", range(7, 9), ["test[0]", "test[1]"]),
        ("tiny_set:train[2:5]", range(2, 5), ["train[2]", "train[3]", "train[4]"]),
        ("tiny_set:test+train[:1]", [7, 8, 0], ["test[0]", "test[1]", "train[0]"]),
    ],
)
def test_a_split_gives_its_images_and_labels(
    data_dir: Path, source: str, rows: list[int], names: list[str]
) -> None:
    images = load_images(f"tfds:{source}", AS_IS, tfds_dir=data_dir, cache_dir=None)
    np.testing.assert_array_equal(images.pixels, PIXELS[list(rows), :, 2:22])
    assert images.labels is not None
    assert images.labels.dtype == np.int32
    assert images.labels.tolist() == [LABELS[row] for row in rows]
    assert images.names == tuple(f"tiny_set/1.0.0/{name}" for name in names)
    assert "tensorflow" not in sys.modules


def test_a_set_is_found_by_its_folder_or_the_usual_variable(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = load_images(f"tfds:{data_dir}/tiny_set/1.0.0:test", AS_IS, cache_dir=None)
    np.testing.assert_array_equal(here.pixels, PIXELS[7:, :, 2:22])
    monkeypatch.setenv("TFDS_DATA_DIR", str(data_dir))
    assert load_images("tfds:tiny_set:test", AS_IS, cache_dir=None).names == here.names


def test_images_go_the_way_of_files(data_dir: Path, tmp_path: Path) -> None:
    preprocessing = Preprocessing(size=8, resize=10)
    for row in range(7):
        (tmp_path / f"{row}.png").write_bytes(png(PIXELS[row]).read())
    expected = load_images(tmp_path, preprocessing, num=4, seed=3).pixels
    images = load_images("tfds:tiny_set:train", preprocessing, num=4, seed=3, tfds_dir=data_dir)
    np.testing.assert_array_equal(images.pixels, expected)


def test_images_and_labels_are_read_once(data_dir: Path, tmp_path: Path) -> None:
    decoded: list[int] = []

    def load() -> Any:
        return load_images(
            "tfds:tiny_set:train",
            AS_IS,
            tfds_dir=data_dir,
            cache_dir=tmp_path,
            progress=lambda done, _: decoded.append(done),
        )

    first = load()
    shard = next((data_dir / "tiny_set/1.0.0").glob("*train*00000*"))
    content, stat = shard.read_bytes(), shard.stat()
    try:
        shard.write_bytes(b"\0" * len(content))  # of the same size and time: a read would show
        os.utime(shard, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        second = load()
    finally:
        shard.write_bytes(content)
        os.utime(shard, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert len(decoded) == 7
    np.testing.assert_array_equal(second.pixels, first.pixels)
    assert second.labels.tolist() == first.labels.tolist() == LABELS[:7]
    next(tmp_path.glob("labels-*")).write_bytes(b"damaged")
    assert load().labels.tolist() == LABELS[:7]


def test_a_damaged_record_is_an_unreadable_image(tmp_path: Path) -> None:
    folder = prepare(tmp_path, {"train": examples(range(3))}, rgb, num_shards=1)
    shard = next(folder.glob("*array_record*"))
    content = bytearray(shard.read_bytes())
    middle = content.find(png(PIXELS[1]).read()[:64]) + 500
    content[middle : middle + 8] = bytes(8)
    shard.write_bytes(content)
    with pytest.raises(UserError, match=r"cannot read image tiny_set/1\.0\.0/train\[1\] "):
        load_images("tfds:tiny_set", AS_IS, tfds_dir=tmp_path, cache_dir=None)
    images = load_images("tfds:tiny_set", AS_IS, tfds_dir=tmp_path, cache_dir=None, on_corrupt="skip")
    assert images.skipped == ("tiny_set/1.0.0/train[1]",)
    assert images.labels is not None
    assert images.labels.tolist() == [LABELS[0], LABELS[2]]


def test_gray_images_and_hidden_labels(tmp_path: Path) -> None:
    def gray(features: Any) -> Any:
        image = features.Image(shape=(20, 24, 1))
        return features.FeaturesDict({"image": image, "label": features.ClassLabel(num_classes=3)})

    hidden = ({"image": png(pixels), "label": -1} for pixels in PIXELS[:2, :, :, 0])
    prepare(tmp_path, {"test": hidden}, gray, num_shards=1)
    images = load_images("tfds:tiny_set:test", AS_IS, tfds_dir=tmp_path, cache_dir=None)
    np.testing.assert_array_equal(images.pixels, PIXELS[:2, :, 2:22, :1])
    assert images.labels is None


def test_a_set_without_images_is_refused(tmp_path: Path) -> None:
    prepare(tmp_path, {"train": [{"x": 1}]}, lambda f: f.FeaturesDict({"x": np.int64}), num_shards=1)
    with pytest.raises(UserError, match=r"has no images: no feature is one \(it has: x\)"):
        load_images("tfds:tiny_set", AS_IS, tfds_dir=tmp_path)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("tiny_set", r"names no split: write tfds:tiny_set:SPLIT \(it has: test, train\)"),
        ("tiny_set:trian", r"unknown split 'trian'; did you mean 'train'\? \(it has: test, train\)"),
        ("tiny_set:train[3:50]", r"slice \[3:50\] incompatible with 7 examples"),
        ("tiny_set:train[:0]", r"split 'train\[:0\]' is empty"),
        ("tiny_set:2.0.0:train", r"has no such version or configuration \(it has: 1\.0\.0\)"),
        ("imagenet2012:validation", "is not prepared in .*`tfds build imagenet2012 --file_format=array_rec"),
        ("imagenet2013:validation", "knows no data set 'imagenet2013', .*did you mean 'imagenet2012'"),
        ("/some/where:train", "'/some/where' is no folder of a prepared data set"),
        ("", "'' is no folder of a prepared data set"),
    ],
)
def test_what_is_not_there_is_said(data_dir: Path, source: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_images(f"tfds:{source}", AS_IS, tfds_dir=data_dir)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("array_record", "tfrecord"), "another file format .*`tfds convert_format"),
        (lambda text: text[:50], "cannot open tfds:.*: .*prepare the data set again"),
    ],
)
def test_other_formats_and_damaged_descriptions(tmp_path: Path, change: Any, message: str) -> None:
    data_dir = tmp_path / "my sets"
    folder = prepare(data_dir, {"train": examples(range(1))}, rgb, num_shards=1)
    info = folder / "dataset_info.json"
    info.write_text(change(info.read_text()))
    with pytest.raises(UserError, match=message):
        load_images("tfds:tiny_set", AS_IS, tfds_dir=data_dir)
    with pytest.raises(
        UserError,
        match=message.replace("_format", f"_format --dataset_version_dir={shlex.quote(str(folder))}"),
    ):
        load_images(f"tfds:{folder}", AS_IS)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    folder = prepare(tmp_path, {"train": examples(range(2))}, rgb)
    next(folder.glob("*-00001-of-*")).unlink()
    with pytest.raises(UserError, match=r"cannot read its file .*-00001-of-00002: No such file"):
        load_images("tfds:tiny_set", AS_IS, tfds_dir=tmp_path)


def test_a_prepared_folder_given_as_images(data_dir: Path) -> None:
    with pytest.raises(UserError, match=r"is a prepared data set.*: write tfds:"):
        load_images(data_dir / "tiny_set/1.0.0", AS_IS)


def test_without_tensorflow_datasets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(UserError, match="pip install tensorflow-datasets"):
        load_images("tfds:tiny_set:train", AS_IS)


def test_a_balanced_draw_reads_the_labels(data_dir: Path) -> None:
    images = load_images("tfds:tiny_set:train", AS_IS, num=6, draw="balanced", tfds_dir=data_dir)
    assert images.labels is not None
    assert np.bincount(images.labels).tolist() == [2, 2, 2]


def prepared(folder: Path, examples: list[dict[str, Any]], **features: Any) -> str:
    """A set with an image and other features; gives its name."""

    def make(f: Any) -> Any:
        return f.FeaturesDict({key: each(f) if callable(each) else each for key, each in features.items()})

    prepare(folder, {"train": examples}, make, num_shards=1)
    return "tfds:tiny_set"


def image_of(f: Any) -> Any:
    return f.Image(shape=(None, None, 3))


def classes_of(number: int) -> Any:
    return lambda f: f.ClassLabel(num_classes=number)


INTEGER = np.dtype(np.int64)


@pytest.mark.parametrize(
    ("features", "suffix", "label", "said"),
    [
        ({"label": INTEGER}, "", "label", ""),
        ({"fine_label": classes_of(9)}, "", "fine_label", ""),
        ({"id": INTEGER, "fine_label": classes_of(9)}, "", "fine_label", ""),
        ({"id": INTEGER, "target": INTEGER}, "", "target", ""),
        (
            {"label": classes_of(9), "coarse_label": classes_of(9)},
            "",
            "label",
            "'label' is used, not coarse_",
        ),
        ({"label": classes_of(9), "coarse_label": classes_of(9)}, "@label=coarse_label", "coarse_label", ""),
        (
            {"id": INTEGER},
            "",
            None,
            "no labels are used, since it could be any of id",
        ),
        ({"id": INTEGER}, "@label=id", "id", ""),
        ({"a": classes_of(9), "b": classes_of(9)}, "", None, "any of a, b; choose one"),
    ],
)
def test_labels_are_found_by_their_type(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    features: dict[str, Any],
    suffix: str,
    label: str | None,
    said: str,
) -> None:
    say_once.cache_clear()
    made = [
        {"image": png(PIXELS[row])} | {key: row + 3 * n for n, key in enumerate(features)} for row in range(2)
    ]
    source = prepared(tmp_path, made, image=image_of, **features)
    images = load_images(source + suffix, AS_IS, tfds_dir=tmp_path, cache_dir=None)
    found = None if images.labels is None else images.labels.tolist()
    assert found == (None if label is None else [example[label] for example in made])
    assert said in caplog.text
    assert bool(said) == bool(caplog.records)


def test_images_are_found_by_their_type(tmp_path: Path) -> None:
    made = [{"left": png(PIXELS[0]), "right": png(PIXELS[1])}]
    source = prepared(tmp_path, made, left=image_of, right=image_of)
    with pytest.raises(UserError, match=r"several images in an example, left, right: .*@image=left"):
        load_images(source, AS_IS, tfds_dir=tmp_path)
    for row, name in enumerate(("left", "right")):
        images = load_images(f"{source}:train@image={name}", AS_IS, tfds_dir=tmp_path, cache_dir=None)
        np.testing.assert_array_equal(images.pixels, PIXELS[row : row + 1, :, 2:22])
    with pytest.raises(UserError, match=r"it has no image 'rihgt'; did you mean 'right'\?"):
        load_images(f"{source}@image=rihgt", AS_IS, tfds_dir=tmp_path)


def test_sixteen_bits_are_scaled(tmp_path: Path) -> None:
    def grey(f: Any) -> Any:
        return f.Image(shape=(None, None, 1), dtype=np.uint16)

    pixels = PIXELS[0, :, :, 0]
    source = prepared(tmp_path, [{"image": png(pixels.astype(np.uint16) * 257)}], image=grey)
    images = load_images(source, AS_IS, tfds_dir=tmp_path, cache_dir=None)
    np.testing.assert_array_equal(images.pixels[0, :, :, 0], pixels[:, 2:22])


def test_labels_too_large_for_indices(tmp_path: Path) -> None:
    made = [{"image": png(PIXELS[row]), "label": 2**40 * row} for row in range(2)]
    source = prepared(tmp_path, made, image=image_of, label=INTEGER)
    with pytest.raises(UserError, match=r"train\[1\] has the label 1099511627776, which is no class index"):
        load_images(source, AS_IS, tfds_dir=tmp_path, cache_dir=None)
