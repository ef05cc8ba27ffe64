from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from evolq_jax.data import fingerprint
from evolq_jax.errors import UserError
from evolq_jax.models.registry import REGISTRY, VIT, Entry
from evolq_jax.models.vit import ViTConfig
from evolq_jax.network.chunks import usual_batch
from evolq_jax.pipeline.images import count_calibration, count_evaluation, load_calibration, load_evaluation
from evolq_jax.pipeline.load import Setup, load_model
from evolq_jax.typing import Preprocessing
from tests.small_run import small_config, write_weights


@pytest.fixture(scope="module")
def setup(weights: Path) -> Setup:
    return load_model(small_config(weights))


def with_data(setup: Setup, **changes: Any) -> Setup:
    return replace(setup, config=replace(setup.config, data=replace(setup.config.data, **changes)))


def test_counts_are_of_what_is_loaded(setup: Setup) -> None:
    for num in (20, None):
        some = with_data(setup, num_calibration=num, num_evaluation=num)
        assert count_calibration(some, for_search=False) == len(load_calibration(some).pixels)
        assert count_evaluation(some) == len(load_evaluation(some).pixels)


def test_the_seed_draws_the_calibration_images_only(setup: Setup) -> None:
    other = replace(setup, config=replace(setup.config, seed=1))
    assert fingerprint(load_calibration(setup)) != fingerprint(load_calibration(other))
    assert fingerprint(load_evaluation(setup)) == fingerprint(load_evaluation(other))


@pytest.fixture
def squares(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Setup:
    """A network for images of 8 pixels, which it wants resized to 12; and one of 16, white inside."""
    config = ViTConfig(image_size=8, patch_size=4, width=8, depth=1, num_heads=1, mlp_width=8, num_classes=3)
    monkeypatch.setitem(REGISTRY, "vit_rgb", Entry("vit_rgb", VIT, config, Preprocessing(8, 12)))
    pixels = np.zeros((16, 16, 3), np.uint8)
    pixels[4:12, 4:12] = 255
    (tmp_path / "images").mkdir()
    Image.fromarray(pixels).save(tmp_path / "images" / "square.png")
    experiment = small_config(write_weights(tmp_path / "rgb.safetensors", "vit_rgb"))
    model = replace(experiment.model, name="vit_rgb")
    data = replace(experiment.data, evaluation=str(tmp_path / "images"), num_evaluation=None)
    return load_model(replace(experiment, model=model, data=data))


def test_evaluation_images_are_resized_as_asked(squares: Setup) -> None:
    def share_of_white(resize: Any) -> float:
        return float(load_evaluation(with_data(squares, evaluation_resize=resize)).pixels.mean() / 255)

    assert share_of_white(None) == 1.0
    assert share_of_white(12) == share_of_white("checkpoint") == pytest.approx(36 / 64, abs=0.05)
    assert share_of_white(8) == pytest.approx(16 / 64, abs=0.05)


def test_a_balanced_draw_has_as_many_of_each_class(setup: Setup) -> None:
    images = load_calibration(with_data(setup, num_calibration=40, draw="balanced"))
    assert images.labels is not None
    assert np.bincount(images.labels).tolist() == [4] * 10


def test_a_balanced_draw_without_classes_is_refused_at_once(squares: Setup) -> None:
    folder = squares.config.data.evaluation
    with pytest.raises(UserError, match="neither class folders nor labels"):
        count_calibration(with_data(squares, calibration=folder, draw="balanced"), for_search=False)


@pytest.mark.parametrize(("count", "said"), [(100, ""), (40, "40, not 100; search.batch_size 20, not 50")])
def test_batches_that_nobody_set_fit_the_images(
    setup: Setup, caplog: pytest.LogCaptureFixture, count: int, said: str
) -> None:
    config = replace(
        setup.config,
        calibration=replace(setup.config.calibration, batch_size=None),
        search=replace(setup.config.search, batch_size=None, holdout=0.5),
    )
    given = with_data(replace(setup, config=config), num_calibration=count)
    assert count_calibration(given, for_search=True) == count
    assert said in caplog.text
    assert bool(said) == bool(caplog.records)


@pytest.mark.parametrize(("count", "size"), [(300, 100), (256, 64), (40, 40), (257, 257), (1009, 1)])
def test_batches_of_calibration(count: int, size: int) -> None:
    assert usual_batch(count, 100) == size


@pytest.mark.parametrize("calibration", ["digits:train", "digits:test"])
def test_images_in_common_are_said(setup: Setup, caplog: pytest.LogCaptureFixture, calibration: str) -> None:
    count_evaluation(with_data(setup, calibration=calibration, evaluation="digits:test"))
    assert ("can have images in common" in caplog.text) == (calibration == "digits:test")


def test_a_large_cache_is_said(
    squares: Setup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("evolq_jax.data.cache._WORTH_A_LINE", 1)
    for _ in range(2):
        load_evaluation(with_data(squares, cache=str(tmp_path / "cache")))
    (record,) = caplog.records
    assert f"decoded images are kept in {tmp_path / 'cache'}" in record.message
    assert "--data.cache None" in record.message
