"""The settings that say which images are used and how they are read."""

from dataclasses import dataclass
from typing import Literal

from evolq_jax.errors import UserError, check_at_least_one


@dataclass(frozen=True)
class DataConfig:
    """Calibration and evaluation images. Evaluation images only measure; they never select anything.

    Attributes:
      calibration: a folder (`<class>/<file>` or flat), an `.npz` file, `digits:train`, or `tfds:SET:SPLIT`: a
        set that tensorflow-datasets has prepared as array_record, by name or folder. A slice of a split
        works too: `tfds:imagenet2012:train[:10%]`. `@label=NAME` behind it chooses among several labels,
        `@image=NAME` among images. Labels are not used, unless `draw` is `balanced`.
      evaluation: the same for the evaluation images; `digits:test`.
      class_index: for folders, a file that lists the network's classes: text with one class a line in index
        order, CSV or JSON (README.md). Without it there is no top-1.
      num_calibration: the number of images that the seed draws from `calibration`; None: all.
      draw: how the seed draws calibration images. `random`, or `balanced`: the same number from each class,
        if it has enough. Classes are folders or labels; nothing else uses the labels.
      num_evaluation: the number of images drawn from `evaluation`, the same for every seed; None: all.
      evaluation_resize: the shorter side of evaluation images before the crop. `checkpoint`: as the
        checkpoint says. None: not resized.
      on_corrupt: what happens at an unreadable image: `error`, or `skip` (the result counts them).
      tfds_dir: where tensorflow-datasets keeps its sets; None: $TFDS_DATA_DIR or ~/tensorflow_datasets.
      cache: the folder for decoded images; `auto`: $EVOLQ_CACHE or ~/.cache/evolq_jax; None: no cache.
      cache_gib: how many GiB decoded images may take there. The entry that was not used for longest makes
        room. None: no limit.
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
