"""The teacher, which searches and descents imitate: the float network, or the released code's variant."""

from evolq_jax.objective.objective import Teacher
from evolq_jax.pipeline.calibrate import Calibrated
from evolq_jax.pipeline.watcher import Watcher
from evolq_jax.quantized.search import teacher_outputs


def teacher_of(calibrated: Calibrated, watcher: Watcher, *, features: bool) -> Teacher:
    """Logits [B, C] on the calibration images and, where asked for, the features [B, ...]."""
    setup, config = calibrated.setup, calibrated.setup.config
    return teacher_outputs(
        calibrated.quantized,
        calibrated.images.pixels,
        config.search.teacher,
        features=features,
        batch_size=config.evaluation_batch,
        mesh=setup.mesh,
        stage=watcher.stage,
    )
