from pathlib import Path

import numpy as np

from evolq_jax.data import fingerprint
from evolq_jax.typing import Images

PIXELS = np.random.default_rng(0).integers(0, 256, (7, 3, 3, 1), dtype=np.uint8)
IMAGES = Images(PIXELS, np.arange(7, dtype=np.int32), tuple("abcdefg"))


def test_fingerprint_sees_names_pixels_and_shape(tmp_path: Path) -> None:
    changed = PIXELS.copy()
    changed[-1, -1, -1] ^= 1
    others = [
        IMAGES._replace(pixels=changed),
        IMAGES._replace(pixels=PIXELS.reshape(7, 9, 1, 1)),
        IMAGES._replace(names=tuple("abcdefh")),
        Images(PIXELS[:6], np.arange(6, dtype=np.int32), tuple("abcdef")),
    ]
    assert len({fingerprint(images) for images in [IMAGES, *others]}) == 5
    np.save(tmp_path / "x.npy", PIXELS)
    mapped = IMAGES._replace(pixels=np.load(tmp_path / "x.npy", mmap_mode="r"), labels=None)
    assert fingerprint(mapped) == fingerprint(IMAGES)
    assert len(fingerprint(IMAGES)) == 16
