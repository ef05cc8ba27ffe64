from pathlib import Path

import numpy as np
import pytest

from evolq_jax.data import load_images
from evolq_jax.data.draw import draw_balanced
from evolq_jax.errors import UserError
from evolq_jax.typing import Preprocessing
from tests.data.conftest import SaveImage

AS_IS = Preprocessing(size=20, resize=None)


def reference_shares(sizes: list[int], num: int) -> list[int]:
    """Dealt one at a time to a class that has fewest and has more, then sorted."""
    dealt = [0] * len(sizes)
    for _ in range(num):
        dealt[min((k for k, size in enumerate(sizes) if dealt[k] < size), key=dealt.__getitem__)] += 1
    return sorted(dealt)


@pytest.mark.parametrize("sizes", [[1], [5, 5, 5], [1, 9, 3, 3], [2, 0, 7, 1, 40], [1] * 30])
def test_classes_have_equal_shares_as_far_as_they_go(sizes: list[int]) -> None:
    classes = np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes)) * 3 - 1, sizes))
    for num in range(1, len(classes) + 1):
        for seed in (None, 0, 1):
            rows = draw_balanced(classes, num, seed)
            assert len(rows) == num
            assert (np.diff(rows) > 0).all()
            shares = [int((classes[rows] == k * 3 - 1).sum()) for k in range(len(sizes))]
            assert sorted(shares) == reference_shares(sizes, num)


def test_every_image_and_every_odd_class_is_as_likely() -> None:
    classes = np.repeat([0, 1, 2], 4)
    counts = np.zeros(12)
    for seed in range(3000):
        counts[draw_balanced(classes, 4, seed)] += 1
    np.testing.assert_allclose(counts / 3000, 4 / 12, atol=0.05)  # some 6 standard deviations


def test_a_folder_is_balanced_by_its_class_folders(tmp_path: Path, save_image: SaveImage) -> None:
    for seed in range(12):
        save_image(tmp_path / ("a" if seed < 10 else "b") / f"{seed:02}.png", seed)

    def load(seed: int | None, num: int = 4) -> list[str]:
        images = load_images(tmp_path, AS_IS, num=num, seed=seed, draw="balanced", cache_dir=None)
        return [*images.names]

    assert load(None) == ["a/00.png", "a/01.png", "b/10.png", "b/11.png"]
    assert [name[0] for name in load(7)] == ["a", "a", "b", "b"]
    assert load(7) == load(7) != load(8)
    with pytest.raises(UserError, match="num asks for 13 images"):
        load(0, 13)


def test_arrays_are_balanced_by_their_labels(tmp_path: Path) -> None:
    labels = np.array([1] * 9 + [7])
    np.savez(tmp_path / "set.npz", image=np.zeros((10, 20, 20, 3), np.uint8), label=labels)
    images = load_images(tmp_path / "set.npz", AS_IS, num=2, draw="balanced")
    assert images.labels is not None
    assert images.labels.tolist() == [1, 7]


def test_images_without_classes_cannot_be_balanced(folder: Path) -> None:
    with pytest.raises(UserError, match=r"neither class folders nor labels: set data\.draw to random"):
        load_images(folder / "a", AS_IS, num=1, draw="balanced")
    with pytest.raises(UserError, match="draw must be 'random' or 'balanced', got 'even'"):
        load_images(folder, AS_IS, num=1, draw="even")  # pyright: ignore[reportArgumentType]
