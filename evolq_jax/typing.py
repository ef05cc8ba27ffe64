"""Shared types and the axis letters used in every docstring.

Axis letters: P population, B images, N tokens, D width, C classes, L depth (blocks of one segment),
H heads, K channels of a tensor's last axis.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol, get_args

import jax
import numpy as np

from evolq_jax.errors import UserError

Array = jax.Array
PyTree = Any
Params = dict[str, Any]  # nested dicts of arrays; blocks of a segment are stacked on a leading L axis
Progress = Callable[[int, int], None]  # (done, total)
FitnessFn = Callable[[Array, Array], Array]  # (student [B, C], teacher [B, C]) -> scalar, minimised


class Site(Protocol):
    """What a network calls at its quantization points. There are float, recording and quantized sites."""

    def __call__(self, name: str, x: Array) -> Array:
        """Returns `x`, observed or fake-quantized. The last axis of `x` is its channel axis."""
        ...

    def layer_norm(self, name: str, source: str, x: Array, norm: Params, *, eps: float) -> Array:
        """LayerNorm over the last axis, then the site `name`.

        `source` is the site that gave `x`. `norm` holds a `weight` and a `bias` [D].
        """
        ...

    def softmax(self, name: str, source: str, logits: Array) -> Array:
        """Softmax over the last axis, then the site `name`. `source` is the site that gave `logits`."""
        ...


class SiteInfo(NamedTuple):
    """A quantization point. `shape` is that of its tensor; for stacked weights, that of one block."""

    shape: tuple[int, ...]
    depth: int | None  # L where the site belongs to a stacked segment
    is_weight: bool
    roles: frozenset[str] = frozenset()  # the fields of `SiteRoles` it is in, `layer_norm`, `softmax`


Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"]  # Pillow's filters
CropMode = Literal["center", "squash"]


@dataclass(frozen=True)
class Preprocessing:
    """How a checkpoint wants its images. It stays with the checkpoint.

    Attributes:
      size: pixels along each side of the square that is cut out of the middle.
      resize: pixels of the shorter side before that. None: images keep their size.
      interpolation: Pillow's filter.
      mean: per channel, on the [0, 1] scale.
      std: as `mean`.
      crop_mode: `center`; or `squash`: both sides become `resize` long, whatever the proportions.
    """

    size: int = 224
    resize: int | None = 248
    interpolation: str = "bicubic"
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)
    crop_mode: str = "center"

    def __post_init__(self) -> None:
        """Rejects what no image can be prepared with."""
        if self.crop_mode not in get_args(CropMode):
            known = ", ".join(get_args(CropMode))
            raise UserError(f"preprocessing.crop_mode '{self.crop_mode}' is unknown (known: {known})")
        if not all(math.isfinite(value) for value in self.mean):
            raise UserError(f"preprocessing.mean must be finite, not {_listed(self.mean)}")
        if not all(0 < value < math.inf for value in self.std):
            raise UserError(f"preprocessing.std must be positive and finite, not {_listed(self.std)}")

    def resize_for(self, size: int) -> int | None:
        """The resize for a crop of another size that keeps the same share of an image."""
        return None if self.resize is None else size * self.resize // self.size

    def __str__(self) -> str:
        """In words, for plans and warnings."""
        how = {"center": "shorter side", "squash": "both sides"}[self.crop_mode]
        resized = "no resize" if self.resize is None else f"{how} to {self.resize} ({self.interpolation})"
        return f"{resized}, crop {self.size}, mean {_listed(self.mean)}, std {_listed(self.std)}"


def _listed(values: tuple[float, ...]) -> str:
    """Numbers in a row; one number if all are the same."""
    return ", ".join(f"{value:g}" for value in (values[:1] if len(set(values)) == 1 else values))


class Images(NamedTuple):
    """Decoded images, resized and cropped but not normalised. `pixels` may be memory-mapped.

    One of several processes may hold only its own rows. Then `pixels` are the rows from `first` on of the B
    images. Labels and names are always those of all images.
    """

    pixels: np.ndarray  # uint8 [B, height, width, channels]
    labels: np.ndarray | None  # int32 [B], or None where there are no labels
    names: tuple[str, ...]  # file (or array index) of each image, for messages and records
    skipped: tuple[str, ...] = ()  # files that could not be read and were left out on request
    first: int = 0


def no_progress(done: int, total: int) -> None:
    """Tells nobody how far something is."""
    del done, total
