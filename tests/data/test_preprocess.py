from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from evolq_jax.cli.override import override
from evolq_jax.config.experiment import Experiment
from evolq_jax.data.preprocess import check_preprocessing, fit_array, resize_and_crop, resized_size
from evolq_jax.errors import UserError
from evolq_jax.typing import Preprocessing


def noise(height: int, width: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)


@pytest.mark.parametrize(
    ("width", "height", "expected"),
    [
        (500, 375, (330, 248)),  # 330.67
        (375, 500, (248, 330)),
        (256, 256, (248, 248)),
        (100, 251, (248, 622)),  # 622.48, enlarged
    ],
)
def test_shorter_side_is_resized_and_longer_rounded_down(
    width: int, height: int, expected: tuple[int, int]
) -> None:
    assert resized_size(width, height, 248) == expected


@pytest.mark.parametrize(("side", "offset"), [(8, 0), (9, 0), (10, 1), (11, 2), (13, 2), (15, 4)])
def test_crop_offsets_round_halves_to_even(side: int, offset: int) -> None:
    pixels = noise(side, side)
    cropped = resize_and_crop(Image.fromarray(pixels), Preprocessing(size=8, resize=None), "x.png")
    np.testing.assert_array_equal(cropped, pixels[offset : offset + 8, offset : offset + 8])


def test_portrait_image_is_resized_then_cropped() -> None:
    image = Image.fromarray(noise(45, 30))
    result = resize_and_crop(image, Preprocessing(size=16, resize=20, interpolation="bilinear"), "x.png")
    whole = np.asarray(image.resize((20, 30), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(result, whole[7:23, 2:18])


def test_interpolation_is_used() -> None:
    image = Image.fromarray(noise(40, 40))
    results = [
        resize_and_crop(image, Preprocessing(size=16, resize=20, interpolation=name), "x.png")
        for name in ("nearest", "bilinear", "bicubic", "lanczos", "box", "hamming")
    ]
    assert len({result.tobytes() for result in results}) == 6


def test_image_below_the_crop_is_named() -> None:
    with pytest.raises(UserError, match=r"small\.png is 30x8, smaller than the crop of 16x16"):
        resize_and_crop(Image.fromarray(noise(8, 30)), Preprocessing(size=16, resize=None), "small.png")


def test_array_without_resize_is_brought_to_size() -> None:
    pixels = noise(8, 12, channels=1)
    result = fit_array(pixels, Preprocessing(size=16, resize=None), "x")
    whole = np.asarray(Image.fromarray(pixels[:, :, 0]).resize((24, 16), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(result[:, :, 0], whole[:, 4:20])


def test_array_with_resize_goes_the_way_of_a_file() -> None:
    pixels = noise(30, 30)
    preprocessing = Preprocessing(size=16, resize=20)
    expected = resize_and_crop(Image.fromarray(pixels), preprocessing, "x")
    np.testing.assert_array_equal(fit_array(pixels, preprocessing, "x"), expected)


@pytest.mark.parametrize(
    ("preprocessing", "message"),
    [
        (Preprocessing(interpolation="bicubik"), "'bicubik' is unknown .*did you mean 'bicubic'"),
        (Preprocessing(size=0), "crop must be positive, got 0"),
        (Preprocessing(size=224, resize=200), r"resize \(200\) must be None or at least .*224"),
    ],
)
def test_bad_preprocessing_is_refused(preprocessing: Preprocessing, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_preprocessing(preprocessing)


def test_squashing_ignores_proportions() -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8))
    pixels = resize_and_crop(image, Preprocessing(16, 20, "bilinear", crop_mode="squash"), "x")
    whole = np.asarray(image.resize((20, 20), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(pixels, whole[2:18, 2:18])


def test_the_advice_on_images_smaller_than_the_crop_can_be_followed() -> None:
    image, wanted = Image.fromarray(noise(30, 40)), Preprocessing(32, None)
    with pytest.raises(
        UserError, match=r"smaller than the crop of 32x32; set preprocessing\.resize"
    ) as caught:
        resize_and_crop(image, wanted, "x")
    advice = str(caught.value)
    options = advice[advice.index("(--") + 1 : advice.rindex(")")].split()
    changes = override(Experiment(), options, "search").preprocessing.changes
    assert resize_and_crop(image, replace(wanted, **changes), "x").shape == (32, 32, 3)
