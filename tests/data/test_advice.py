"""What messages about pictures tell a user to do: it is done, and the picture is read."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evolq_jax.data.load import load_images
from evolq_jax.errors import UserError
from evolq_jax.typing import Preprocessing

PRE = Preprocessing(size=16, resize=None)
GREY = np.random.default_rng(0).integers(0, 256, (16, 16)).astype(np.uint8)


@pytest.mark.parametrize(
    ("name", "picture"),
    [
        ("float.tif", Image.fromarray(GREY.astype(np.float32) / 255)),
        ("wide.tif", Image.fromarray(GREY.astype(np.int32) * 1000)),
        ("twelve.png", Image.fromarray(GREY.astype(np.uint16) * 16)),
    ],
)
def test_it_is_saved_with_8_bits(tmp_path: Path, name: str, picture: Image.Image) -> None:
    picture.save(tmp_path / name)
    with pytest.raises(UserError, match="save it with 8 bits"):
        load_images(tmp_path, PRE, cache_dir=None)
    Image.fromarray(GREY).save(tmp_path / name)
    np.testing.assert_array_equal(load_images(tmp_path, PRE, cache_dir=None).pixels[0, ..., 0], GREY)


def test_it_is_saved_on_a_background(tmp_path: Path) -> None:
    """All of the picture is in its transparency."""
    black = np.zeros_like(GREY)
    only_alpha = Image.fromarray(np.stack([black, black, black, GREY], axis=-1))
    only_alpha.save(tmp_path / "shape.png")
    with pytest.raises(UserError, match="save it on a background"):
        load_images(tmp_path, PRE, cache_dir=None)
    background = Image.new("RGBA", only_alpha.size, "white")
    Image.alpha_composite(background, only_alpha).convert("RGB").save(tmp_path / "shape.png")
    assert np.ptp(load_images(tmp_path, PRE, cache_dir=None).pixels) > 200
