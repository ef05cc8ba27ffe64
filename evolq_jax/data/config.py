"""Which images, and how they are read."""

from dataclasses import dataclass
from typing import Literal

from evolq_jax.errors import UserError, check_at_least_one


@dataclass(frozen=True)
class DataConfig:
    """Calibration and evaluation images. The evaluation set only measures; nothing is selected on it.

    Attributes:
      calibration: folder (`<class>/<file>` or flat), `.npz` file, `digits:train`, or `tfds:SET:SPLIT`:
        what tensorflow-datasets has prepared as array_record, by name or folder, a slice of a split too
        (`tfds:imagenet2012:train[:10%]`). Labels are not used (but see `draw`).
      evaluation: the same for the evaluation images; `digits:test`.
      class_index: file with a class id a line in index order, for folders; without it no top-1.
      num_calibration: images drawn from `calibration` by the seed; None: all.
      draw: how the seed draws calibration images: `random`, or `balanced`: as many of each class as of any
        other, where they have enough (by class folders, or by labels, which nothing else uses).
      num_evaluation: images drawn from `evaluation`, the same for every seed; None: all.
      evaluation_resize: shorter side of evaluation images before the crop; `checkpoint`: as the
        checkpoint says; None: not resized.
      on_corrupt: what an unreadable image does: `error`, or `skip` (counted in the result).
      tfds_dir: where tensorflow-datasets keeps its sets; None: $TFDS_DATA_DIR or ~/tensorflow_datasets.
      cache: folder for decoded images; `auto`: $EVOLQ_CACHE or ~/.cache/evolq_jax; None: no cache.
      cache_gib: what decoded images take there at most, in GiB; what was not used for longest is removed to
        make room. None: no bound.
    """

    calibration: str = "digits:train"
    evaluation: str = "digits:test"
    class_index: str | None = None
    num_calibration: int | None = 100
    draw: Literal["random", "balanced"] = "random"
    num_evaluation: int | None = None
    evaluation_resize: int | Literal["checkpoint"] | None = "checkpoint"
    on_corrupt: Literal["error", "skip"] = "error"
    tfds_dir: str | None = None
    cache: str | None = "auto"
    cache_gib: float | None = 50.0

    def __post_init__(self) -> None:
        """Rejects numbers of images that mean nothing."""
        if self.cache_gib is not None and not self.cache_gib >= 0:
            raise UserError(f"data.cache_gib must not be negative, not {self.cache_gib}")
        for name in ("num_calibration", "num_evaluation", "evaluation_resize"):
            value = getattr(self, name)
            if isinstance(value, int):
                check_at_least_one(f"data.{name}", value)
