"""The settings of a landscape scan."""

from dataclasses import dataclass
from typing import Literal

import jax

from evolq_jax.errors import UserError, check_choices
from evolq_jax.network.chunks import largest_divisor
from evolq_jax.objective.terms import TERMS

Kind = Literal["line", "plane", "layers"]
DirectionName = Literal["uniform", "gaussian", "filter", "ratio", "between", "principal"]
LossName = Literal[
    "cross_entropy",
    "error_rate",
    "info_nce",
    "mse",
    "cosine",
    "kl",
    "features",
    "centred_cosine",
    "top_k_kl",
]

LOSSES: tuple[LossName, ...] = (
    "cross_entropy",
    "error_rate",
    "info_nce",
    "mse",
    "cosine",
    "kl",
)  # by default
USUAL_BATCH = 50
MIN_POINTS = 3  # a second difference takes three
# By default, so that ViT-Tiny takes minutes on a laptop. Odd: the origin is a point. Strides of 2 and 4 fit.
POINTS: dict[Kind, int] = {"line": 51, "plane": 17, "layers": 9}
DIRECTIONS: dict[Kind, int] = {"line": 3, "plane": 2, "layers": 1}
MAX_POINTS = 10**6  # each is a network run on all images


@dataclass(frozen=True)
class LandscapeConfig:
    """What a scan computes, and on which images. docs/landscapes.md explains the choices.

    Attributes:
      kind: `line` (1-D, several directions), `plane` (2-D, one pair of directions), or `layers` (lines
        that move one site of one block at a time, several directions each).
      direction: `uniform` (a box of +-epsilon, added, as Evol-Q mutates), `gaussian` (normal in the
        logarithm of each scale, of size epsilon), `filter` (normal; each site of each block has epsilon times
        the norm of its scales: Li et al. 2018), `ratio` (all scales times the same ratio), `between`
        (towards another point: see `towards`) or `principal` (principal directions of `results`).
      second: the second direction of a plane; None: the same kind as the first.
      origin: the point around which is scanned: `init`, or the `final` of a finished run.
      towards: the run directory whose result is the other end of `between`; None: this run's final or init.
      results: the run directories of whose results `principal` takes the principal directions.
      sites: patterns of the sites whose scales move. Zero points stay.
      blocks: numbers of the blocks whose scales move. Empty: all blocks, and the sites outside blocks.
      epsilon: the size of a move at coordinate 1. `between` and `principal` ignore it.
      points: grid points along an axis; None: 51 on a line, 17 on a plane, 9 for layers. With an odd number
        one point is the origin. The time grows with the points: a plane has their square.
      low: first coordinate of an axis. The origin is at 0; the other end of `between` is at 1.
      high: last coordinate of an axis.
      directions: the number of random directions of lines and layers, or of `principal` directions; None: 3
        for lines, 1 for layers.
      losses: what is computed at every point. Losses that need labels are left out if there are none.
        Beside the defaults there are `features`, the relative error of the features that the classifiers
        read, `centred_cosine` and `top_k_kl`.
      temperatures: of infoNCE. Each one gives a loss of its own.
      images: `calibration` or `evaluation` images. Folders of calibration images have no labels.
      num_images: the number of images, drawn by the seed; None: all. The time grows with it.
      batch_size: contrastive batch of `info_nce` and `centred_cosine`. None: 50, or what divides the number
        of images.
      image_chunk: images run at once; None: chosen for the backend.
      point_chunk: grid points run at once on each device; None: chosen for the backend.
      plots: also draw pictures, and a page that shows them (needs matplotlib).
    """

    kind: Kind = "line"
    direction: DirectionName = "gaussian"
    second: DirectionName | None = None
    origin: Literal["init", "final"] = "init"
    towards: str | None = None
    results: tuple[str, ...] = ()
    sites: tuple[str, ...] = ("*/attn/*/weight", "*/mlp/*/weight")
    blocks: tuple[int, ...] = ()
    epsilon: float = 0.1
    points: int | None = None
    low: float = -1.0
    high: float = 1.0
    directions: int | None = None
    losses: tuple[LossName, ...] = LOSSES
    temperatures: tuple[float, ...] = (0.3, 1.0, 3.0)
    images: Literal["calibration", "evaluation"] = "calibration"
    num_images: int | None = 50
    batch_size: int | None = None
    image_chunk: int | None = None
    point_chunk: int | None = None
    plots: bool = True

    def __post_init__(self) -> None:
        """Rejects names, sizes and ranges that mean nothing."""
        check_choices(self, "landscape.")
        for key in ("sites", "losses"):
            if not getattr(self, key):
                raise UserError(f"landscape.{key} is empty: name at least one")
        if self.num_points < MIN_POINTS:
            raise UserError(f"landscape.points must be at least {MIN_POINTS}, not {self.points}")
        if self.num_points ** len(self.axes) > MAX_POINTS:
            grid = " × ".join([f"{self.num_points:,}"] * len(self.axes))
            raise UserError(
                f"landscape.points make a grid of {grid}; at most {MAX_POINTS:,} points are scored"
            )
        for key in ("directions", "num_images", "batch_size", "image_chunk", "point_chunk"):
            if getattr(self, key) is not None and getattr(self, key) < 1:
                raise UserError(f"landscape.{key} must be at least 1, not {getattr(self, key)}")
        self._check_range()
        if self.kind == "layers" and self.direction in ("between", "principal"):
            raise UserError(
                f"landscape.direction '{self.direction}' is one of the whole network; for layers take "
                "'uniform', 'gaussian', 'filter' or 'ratio'"
            )
        if self.second is not None and self.kind != "plane":
            raise UserError("landscape.second is a plane's: set landscape.kind plane")
        if self.kind == "plane" and self.axes in (("ratio", "ratio"), ("between", "between")):
            raise UserError(
                f"there is one direction '{self.direction}', and a plane needs two: set landscape.second, "
                "for example to gaussian"
            )

    def _check_range(self) -> None:
        if not self.epsilon > 0:
            raise UserError(f"landscape.epsilon must be positive, not {self.epsilon}")
        if "info_nce" in self.losses and not self.temperatures:
            raise UserError("landscape.temperatures is empty: name one, or leave info_nce out of the losses")
        for temperature in self.temperatures:
            if not temperature > 0:
                raise UserError(f"landscape.temperatures must be positive, not {temperature}")
        if not self.low < self.high:
            raise UserError(f"landscape.low ({self.low}) must be below landscape.high ({self.high})")

    @property
    def axes(self) -> tuple[DirectionName, ...]:
        """The direction of each axis of the scan."""
        if self.kind != "plane":
            return (self.direction,)
        return self.direction, self.second or self.direction

    @property
    def num_points(self) -> int:
        """The number of grid points along an axis."""
        return POINTS[self.kind] if self.points is None else self.points

    @property
    def num_directions(self) -> int:
        """The number of directions where they are drawn or computed."""
        return DIRECTIONS[self.kind] if self.directions is None else self.directions

    def chunks(self) -> tuple[int, int]:
        """Images and points run at once on a device: the settings, or what suits the backend."""
        images, points = (10, 1) if jax.default_backend() == "cpu" else (100, 16)
        return self.image_chunk or images, self.point_chunk or points

    def batch_for(self, number: int) -> int:
        """The contrastive batch for so many images: the one that is set, or one that divides them."""
        return self.batch_size or largest_divisor(number, USUAL_BATCH)

    def check_batches(self, count: int) -> int:
        """The number of images that the scan uses, of `count` that there are.

        Raises:
          UserError: there are too few images, or contrastive batches would not be whole.
        """
        number = self.num_images or count
        if number > count:
            raise UserError(
                f"landscape.num_images asks for {number} images, but there are {count} {self.images} ones"
            )
        contrastive = [loss for loss in self.losses if loss in TERMS and TERMS[loss].contrastive]
        batch_size = self.batch_for(number)
        if contrastive and (number % batch_size or batch_size == 1):
            raise UserError(
                f"{number} images are no whole number of {contrastive[0]}'s batches of "
                f"{self.batch_size or f'{USUAL_BATCH} or less'}: "
                "change landscape.num_images or landscape.batch_size"
            )
        return number
