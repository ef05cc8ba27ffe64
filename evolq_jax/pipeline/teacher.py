"""The teacher, which searches and descents imitate: the float network, or the released code's variant."""

import jax.numpy as jnp

from evolq_jax.pipeline.calibrate import Calibrated
from evolq_jax.pipeline.watcher import Watcher
from evolq_jax.quantized.logits import compute_logits
from evolq_jax.typing import Array, Progress


def teacher_logits(calibrated: Calibrated, watcher: Watcher) -> Array:
    """The teacher's logits [B, C]: those of the float network, or of the released code's variant."""
    return _teacher(calibrated, watcher.stage("computing the teacher"), features=False)


def teacher_features(calibrated: Calibrated, watcher: Watcher) -> Array:
    """The teacher's features [B, ...]: what its classifiers read."""
    return _teacher(calibrated, watcher.stage("computing the teacher's features"), features=True)


def _teacher(calibrated: Calibrated, progress: Progress, *, features: bool) -> Array:
    setup, config = calibrated.setup, calibrated.setup.config
    integer = config.search.teacher == "integer_layer_norm"
    found = compute_logits(
        calibrated.quantized if integer else setup.model,
        calibrated.images.pixels,
        config.calibration.image_chunk,
        integer_norm_only=integer,
        features=features,
        mesh=setup.mesh,
        progress=progress,
    )
    return jnp.asarray(found)
