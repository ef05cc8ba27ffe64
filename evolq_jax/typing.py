"""Shared types and the axis letters used in every docstring.

Axis letters: P population, B images, N tokens, D width, C classes, L depth (blocks of one segment),
H heads, K channels of a tensor's last axis.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

Array = jax.Array
PyTree = Any
Params = dict[str, Any]  # nested dicts of arrays; blocks of a segment are stacked on a leading L axis
CORRECTION = "correction"  # of a segment's parameters, where calibration has added one: see network.run_block
BLOCK_INPUT = ""  # in `Linear`: what a block is given, which is no site of its own
FitnessFn = Callable[[Array, Array], Array]  # (student [B, C], teacher [B, C]) -> scalar, minimised


class QParams(NamedTuple):
    """One quantizer's searched numbers, each of the same rank as the tensor it quantizes.

    Stacked sites (those of a segment's blocks) carry a leading L axis.
    """

    scale: Array  # float32, positive
    zero_point: Array  # float32 holding integers; other quantizers than the uniform keep another one here


Scales = dict[str, QParams]  # site name -> QParams


class Site(Protocol):
    """What a network calls at its quantization points (float, recording and quantized readings)."""

    def __call__(self, name: str, x: Array) -> Array:
        """Returns `x`, observed or fake-quantized; the last axis of `x` is its channel axis."""
        ...

    def layer_norm(self, name: str, source: str, x: Array, weight: Array, bias: Array, eps: float) -> Array:
        """LayerNorm over the last axis, then the site `name`; `source` is the site that produced `x`."""
        ...

    def softmax(self, name: str, source: str, logits: Array) -> Array:
        """Softmax over the last axis, then the site `name`; `source` is the site that produced `logits`."""
        ...


class SiteInfo(NamedTuple):
    """A quantization point: `shape` of its tensor (for weights of one block where it is stacked)."""

    shape: tuple[int, ...]
    depth: int | None  # L where the site belongs to a stacked segment
    is_weight: bool
    roles: frozenset[str] = frozenset()  # the fields of `SiteRoles` it is in, `layer_norm`, `softmax`


@dataclass(frozen=True)
class SiteRoles:
    """What the sites of a family of networks are to a quantization scheme: patterns of site names.

    Patterns are shell style, and `*` also crosses `/`. Which sites are outputs of LayerNorm or softmax is
    known from how they are called.

    Attributes:
      operands: activations that matrix products and convolutions multiply.
      residual: the residual stream, where a block, a norm or a head receives it.
      edge_weights: weights of the first and the last layers.
      edge_inputs: the operands that these multiply.
      per_tensor: activations that cannot have a range for each channel: their last axis is tokens, or, for
        logits, no calibration set has every class at its highest.
      beyond_paper: sites that the official code does not quantize.
      gelu: outputs of GELU.
      addends: what additions of the residual stream and of position embeddings add, where it is no operand.
    """

    operands: tuple[str, ...] = ()
    residual: tuple[str, ...] = ()
    edge_weights: tuple[str, ...] = ()
    edge_inputs: tuple[str, ...] = ()
    per_tensor: tuple[str, ...] = ()
    beyond_paper: tuple[str, ...] = ()
    gelu: tuple[str, ...] = ()
    addends: tuple[str, ...] = ()


class Linear(NamedTuple):
    """A linear layer of a block, as calibration sees it: `params[name]` holds its weight and bias.

    Or a convolution of odd size and stride 1 that keeps the image's size.

    Attributes:
      name: its path in the block's parameters.
      source: the site of its input, or `BLOCK_INPUT`.
      residual: the same of what its output is added to, where it ends a branch.
      normed: whether a LayerNorm follows that sum.
      importance: the site whose gradients say how much each of the layer's tokens counts; empty: its output,
        the site of its own name; None: all count alike.
      arrange: brings `residual` into the order of the layer's tokens, where that differs.
    """

    name: str
    source: str
    residual: str | None = None
    normed: bool = True
    importance: str | None = ""
    arrange: Callable[[Array], Array] | None = None

    @property
    def importance_site(self) -> str | None:
        """`importance`, with the default resolved."""
        return self.name if self.importance == "" else self.importance


class Channels(NamedTuple):
    """An activation whose channels can be rescaled without changing the network's function.

    What makes it is divided by a factor for each channel, what reads it is multiplied. Names are whole:
    `blocks/norm1`.
    """

    site: str  # the activation [..., K]
    maker: str  # the LayerNorm or linear layer whose last K outputs it is, mixed within channels at most
    readers: tuple[str, ...]  # the linear layers that multiply it: they alone read it
    between: tuple[str, ...] = ()  # other sites that these channels pass


@dataclass(frozen=True)
class Segment:
    """A run of `length` identical blocks whose parameters are stacked under `params[name]`.

    `enter(params, site, x)` leads into the segment (embedding for the first, patch merging or nothing for
    later ones) and gets the whole parameter tree; `block(block_params, site, x)` is one block, which keeps
    the shape of `x` unless it is the segment's only one. `linears` are the layers that compensating
    initialisers may change, in the order in which the block runs them.
    """

    name: str
    length: int
    enter: Callable[[Params, Site, Array], Array]
    block: Callable[[Params, Site, Array], Array]
    linears: tuple[Linear, ...] = ()


@dataclass(frozen=True)
class ModelParts:
    """A network as algorithms see it: segments of stacked blocks, then a head that gives logits [B, C].

    `features` is the site of the head that its classifiers read, [B, ...]; empty where none is declared.
    """

    segments: tuple[Segment, ...]
    head: Callable[[Params, Site, Array], Array]
    roles: SiteRoles = SiteRoles()
    channels: tuple[Channels, ...] = ()  # what initialisers may fold into
    features: str = ""


@dataclass(frozen=True)
class Preprocessing:
    """How a checkpoint wants its images; travels with the checkpoint.

    `resize` is the length of the shorter side before the centre crop of `size` (None: images are used
    at the size they have); `mean` and `std` are per channel on the [0, 1] scale.
    """

    size: int = 224
    resize: int | None = 248
    interpolation: str = "bicubic"
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)


class Images(NamedTuple):
    """Decoded images, resized and cropped but not normalised; `pixels` may be memory-mapped.

    One of several processes may hold only its own rows: then `pixels` are those from `first` on of the B
    images; labels and names are always of all.
    """

    pixels: np.ndarray  # uint8 [B, height, width, channels]
    labels: np.ndarray | None  # int32 [B], or None where there are no labels
    names: tuple[str, ...]  # file (or array index) of each image, for messages and records
    skipped: tuple[str, ...] = ()  # files that could not be read and were left out on request
    first: int = 0
