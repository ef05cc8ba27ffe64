"""How images are prepared, where it is not as the checkpoint says."""

from dataclasses import dataclass
from typing import Any, Literal

from evolq_jax.errors import UserError, check_at_least_one
from evolq_jax.typing import CropMode, Interpolation, Preprocessing


@dataclass(frozen=True)
class PreprocessingConfig:
    """What replaces the checkpoint's own preprocessing. None, or `checkpoint`: as the checkpoint says.

    Attributes:
      mean: of each channel on the [0, 1] scale; one number stands for all channels.
      std: as `mean`.
      resize: pixels of the shorter side before the crop; None: images keep their size.
      crop: pixels along each side of the square that is cut out of the middle. Networks without position
        embeddings or windows take any.
      interpolation: Pillow's filter.
      crop_mode: `center`; or `squash`: both sides become `resize` long, whatever the proportions.
    """

    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    resize: int | Literal["checkpoint"] | None = "checkpoint"
    crop: int | None = None
    interpolation: Interpolation | None = None
    crop_mode: CropMode | None = None

    def __post_init__(self) -> None:
        """Rejects what no image can be prepared with."""
        for name in ("crop", "resize"):
            value = getattr(self, name)
            if isinstance(value, int):
                check_at_least_one(f"preprocessing.{name}", value)
        for name in ("mean", "std"):
            if getattr(self, name) == ():
                raise UserError(f"preprocessing.{name} needs a number for each channel, or one for all")
        Preprocessing(mean=self.mean or (0.0,), std=self.std or (1.0,))

    @property
    def changes(self) -> dict[str, Any]:
        """Fields of `Preprocessing` and their values."""
        names = {"mean": "mean", "std": "std", "crop": "size"}
        names |= {name: name for name in ("interpolation", "crop_mode")}
        given = {field: getattr(self, name) for name, field in names.items()}
        found = {field: value for field, value in given.items() if value is not None}
        return found if self.resize == "checkpoint" else found | {"resize": self.resize}
