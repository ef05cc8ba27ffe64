from dataclasses import replace
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from evolq_jax.network.reading import float_reading
from evolq_jax.network.run import forward, normalize
from evolq_jax.pipeline.calibrate import Calibrated, calibrate_setup
from evolq_jax.pipeline.images import load_evaluation
from evolq_jax.pipeline.load import load_model
from evolq_jax.pipeline.watcher import Silent
from evolq_jax.quantized.logits import compute_logits
from tests.small_run import BATCH, small_config


@pytest.fixture(scope="module")
def calibrated(weights: Path) -> Calibrated:
    config = small_config(weights)
    setup = load_model(replace(config, data=replace(config.data, num_calibration=BATCH)))
    return calibrate_setup(setup, Silent(), for_search=False)


@pytest.fixture(scope="module")
def pixels(calibrated: Calibrated) -> np.ndarray:
    return load_evaluation(calibrated.setup).pixels


def logits_of(
    calibrated: Calibrated, pixels: np.ndarray, quantized: bool, batch_size: int = BATCH
) -> np.ndarray:
    network = calibrated.quantized if quantized else calibrated.setup.model
    return compute_logits(network, pixels, batch_size)


@pytest.mark.parametrize("quantized", [False, True])
def test_padding_the_last_batch_changes_nothing(
    calibrated: Calibrated, pixels: np.ndarray, quantized: bool
) -> None:
    count = BATCH + 3
    padded, whole = (logits_of(calibrated, some, quantized) for some in (pixels[:count], pixels[: 2 * BATCH]))
    assert padded.shape == (count, 10)
    np.testing.assert_array_equal(padded, whole[:count])


def test_logits_are_those_of_the_forward_pass(calibrated: Calibrated, pixels: np.ndarray) -> None:
    model, few = calibrated.setup.model, pixels[:3]  # fewer than a batch
    images = normalize(model.preprocessing, jnp.asarray(few))
    plain = forward(model.parts, float_reading(model.params), images)
    np.testing.assert_allclose(logits_of(calibrated, few, quantized=False), plain, rtol=0, atol=1e-4)


def test_progress_counts_images_not_padding(calibrated: Calibrated, pixels: np.ndarray) -> None:
    calls: list[tuple[int, int]] = []
    model = calibrated.setup.model
    compute_logits(
        model, pixels[: BATCH + 3], BATCH, progress=lambda done, total: calls.append((done, total))
    )
    assert calls == [(BATCH, BATCH + 3), (BATCH + 3, BATCH + 3)]
