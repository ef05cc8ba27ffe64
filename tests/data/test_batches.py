from pathlib import Path

import numpy as np
import pytest

from evolq_jax.data import batches, fingerprint, subset
from evolq_jax.errors import UserError
from evolq_jax.typing import Images

PIXELS = np.random.default_rng(0).integers(0, 256, (7, 3, 3, 1), dtype=np.uint8)
IMAGES = Images(PIXELS, np.arange(7, dtype=np.int32), tuple("abcdefg"))


@pytest.mark.parametrize("batch_size", [1, 3, 7, 10])
def test_batches_cover_all_images_once(batch_size: int) -> None:
    parts = list(batches(PIXELS, batch_size))
    assert {pixels.shape for pixels, _ in parts} == {(batch_size, 3, 3, 1)}
    assert {(mask.shape, mask.dtype) for _, mask in parts} == {((batch_size,), np.dtype(bool))}
    np.testing.assert_array_equal(np.concatenate([pixels[mask] for pixels, mask in parts]), PIXELS)


def test_padding_repeats_the_last_image() -> None:
    *_, (pixels, mask) = batches(PIXELS, 5)
    assert mask.tolist() == [True, True, False, False, False]
    np.testing.assert_array_equal(pixels, PIXELS[[5, 6, 6, 6, 6]])


def test_batch_size_is_checked_at_the_call() -> None:
    with pytest.raises(UserError, match="batch_size must be positive, got 0"):
        batches(PIXELS, 0)


def test_subset_keeps_order_and_skipped() -> None:
    some = subset(IMAGES._replace(skipped=("x",)), [4, 1])
    np.testing.assert_array_equal(some.pixels, PIXELS[[4, 1]])
    assert some.labels is not None
    assert some.labels.tolist() == [4, 1]
    assert some.names == ("e", "b")
    assert some.skipped == ("x",)
    assert subset(IMAGES._replace(labels=None), [0]).labels is None


@pytest.mark.parametrize("index", [7, -1])
def test_subset_outside_the_set(index: int) -> None:
    with pytest.raises(UserError, match=f"index {index} is outside the set of 7"):
        subset(IMAGES, [0, index])


def test_fingerprint_sees_names_pixels_and_shape(tmp_path: Path) -> None:
    changed = PIXELS.copy()
    changed[-1, -1, -1] ^= 1
    others = [
        IMAGES._replace(pixels=changed),
        IMAGES._replace(pixels=PIXELS.reshape(7, 9, 1, 1)),
        IMAGES._replace(names=tuple("abcdefh")),
        subset(IMAGES, range(6)),
    ]
    assert len({fingerprint(images) for images in [IMAGES, *others]}) == 5
    np.save(tmp_path / "x.npy", PIXELS)
    mapped = IMAGES._replace(pixels=np.load(tmp_path / "x.npy", mmap_mode="r"), labels=None)
    assert fingerprint(mapped) == fingerprint(IMAGES)
    assert len(fingerprint(IMAGES)) == 16
