from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evolq_jax.data import draw_indices, load_images
from evolq_jax.data.load import share_images
from evolq_jax.errors import UserError
from evolq_jax.typing import Preprocessing


def test_drawn_indices_are_a_seeded_set() -> None:
    drawn = draw_indices(1000, 100, 7)
    rng = np.random.Generator(np.random.PCG64(7))
    assert drawn.tolist() == sorted(rng.choice(1000, 100, replace=False).tolist())
    assert len(set(drawn.tolist())) == 100
    assert drawn.tolist() != draw_indices(1000, 100, 8).tolist()


def test_all_or_the_first_images() -> None:
    assert draw_indices(5, None, 3).tolist() == draw_indices(5, 5, 3).tolist() == [0, 1, 2, 3, 4]
    assert draw_indices(5, 2, None).tolist() == [0, 1]


@pytest.mark.parametrize(
    ("num", "seed", "message"),
    [
        (5, 0, "num asks for 5 images, but .*images has only 4"),
        (0, 0, "num must be positive .*got 0"),
        (-1, 0, "num must be positive .*got -1"),
        (2, -1, "seed .* must not be negative, got -1"),
    ],
)
def test_bad_subsets_are_refused(folder: Path, num: int, seed: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_images(folder, Preprocessing(size=20, resize=None), num=num, seed=seed)


def test_unknown_on_corrupt_is_refused(folder: Path) -> None:
    with pytest.raises(UserError, match="on_corrupt must be 'error' or 'skip', got 'ignore'"):
        load_images(folder, Preprocessing(), on_corrupt="ignore")  # pyright: ignore[reportArgumentType]


def test_unknown_file_is_refused(class_index: Path) -> None:
    with pytest.raises(UserError, match=r"classes\.txt is a file of unknown kind"):
        load_images(class_index, Preprocessing())


@pytest.mark.parametrize(
    ("name", "resize", "num", "num_classes"), [("calib", 248, 1000, 1000), ("val", None, 1300, 725)]
)
def test_real_images(
    shared: Path, tmp_path: Path, name: str, resize: int | None, num: int, num_classes: int
) -> None:
    folder, index = shared / "data/imagenet" / name, shared / "data/imagenet/synsets.txt"
    synsets = index.read_text().split()
    images = load_images(folder, Preprocessing(resize=resize), class_index=index, cache_dir=tmp_path)
    assert images.pixels.shape == (num, 224, 224, 3)
    assert images.skipped == ()
    assert images.labels is not None
    assert len(set(images.labels.tolist())) == num_classes
    # Sorted by synset and sorted by class index are the same order here.
    assert (np.diff(images.labels) >= 0).all()
    assert [synsets[label] for label in images.labels] == [image.split("/")[0] for image in images.names]
    for row in (0, 1, num // 2, num - 1):
        image = Image.open(folder / images.names[row]).convert("RGB")
        if resize is None:
            expected = np.asarray(image)[2:226, 2:226]  # 227 pixels, offset 1.5 rounds to 2
        else:
            expected = np.asarray(image.resize((248, 248), Image.Resampling.BICUBIC))[12:236, 12:236]
        np.testing.assert_array_equal(images.pixels[row], expected)


@pytest.mark.parametrize(("name", "num"), [("calib", 1000), ("test", 10000)])
def test_real_arrays(shared: Path, name: str, num: int) -> None:
    images = load_images(shared / f"data/cifar10/{name}.npz", Preprocessing(size=32, resize=None))
    assert images.pixels.shape == (num, 32, 32, 3)
    assert images.labels is not None
    assert set(images.labels.tolist()) == set(range(10))


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("images", "./images/", True),
        ("images", "images/cats", True),
        ("images", "images2", False),
        ("digits:train", "digits:train", True),
        ("digits:train", "digits:test", False),
        ("tfds:cifar10:train", "tfds:cifar10:test", False),
        ("tfds:cifar10:train[:10%]", "tfds:cifar10:train[10%:]+test", True),
        ("tfds:cifar10:train", "tfds:cifar100:train", False),
        ("tfds:packed", "tfds:packed:images", True),
        ("tfds:cifar10:train", "images", False),
    ],
)
def test_sets_that_may_share_images(one: str, other: str, expected: bool) -> None:
    assert share_images(one, other) is expected
    assert share_images(other, one) is expected
