"""Networks as algorithms see them: segments of stacked blocks, a head, and the roles of the sites."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from evolq_jax.typing import Array, Params, Site

CORRECTION = "correction"  # of a segment's parameters, where calibration has added one: see network.run_block


BLOCK_INPUT = ""  # in `Linear`: what a block is given, which is no site of its own


@dataclass(frozen=True)
class SiteRoles:
    """The roles of a family's sites in a quantization scheme, as patterns of site names.

    Patterns are shell style, and `*` also crosses `/`. Outputs of LayerNorm and softmax need no role: the way
    in which a network calls these sites shows what they are.

    Attributes:
      operands: activations that matrix products and convolutions multiply.
      residual: the residual stream, where a block, a norm or a head receives it.
      edge_weights: weights of the first and the last layers.
      edge_inputs: the operands that these weights multiply.
      per_tensor: activations that cannot have a range for each channel. Their last axis is tokens; or they
        are logits, and no calibration set has every class at its highest.
      beyond_paper: sites that the official code does not quantize.
      gelu: outputs of GELU.
      addends: what additions of the residual stream and of position embeddings add, unless it is an operand.
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
    """A linear layer of a block, as calibration sees it. `params[name]` holds its weight and bias.

    It can also be a convolution of odd size and stride 1 that keeps the image's size.

    Attributes:
      name: its path in the block's parameters.
      source: the site of its input, or `BLOCK_INPUT`.
      residual: if the layer ends a branch, the site (or `BLOCK_INPUT`) to which its output is added.
      normed: whether a LayerNorm follows that sum.
      importance: the site whose gradients say how much each token of the layer counts. Empty: the layer's
        output, which is the site of its own name. None: all tokens count alike.
      arrange: brings `residual` into the order of the layer's tokens, if the orders differ.
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

    Its maker is divided by a factor for each channel, and its readers are multiplied. Names are complete:
    `blocks/norm1`.
    """

    site: str  # the activation [..., K]
    maker: str  # the LayerNorm or linear layer whose last K outputs it is, mixed within channels at most
    readers: tuple[str, ...]  # the linear layers that multiply it: they alone read it
    between: tuple[str, ...] = ()  # other sites that these channels pass


@dataclass(frozen=True)
class Segment:
    """A run of `length` identical blocks whose parameters are stacked under `params[name]`.

    - `enter(params, site, x)` leads into the segment: embedding for the first one, patch merging or nothing
      for later ones. It gets the whole parameter tree.
    - `block(block_params, site, x)` is one block. It keeps the shape of `x`, unless it is the only block.
    - `linears` are the layers that links may correct, in the order in which the block runs them.
    - `last(block_params, site, x)` is the block before a head that reads only the first n of its tokens:
      [B, N, ...] -> [B, n, ...]. It saves the work for the others. None: the head reads them all.
    """

    name: str
    length: int
    enter: Callable[[Params, Site, Array], Array]
    block: Callable[[Params, Site, Array], Array]
    linears: tuple[Linear, ...] = ()
    last: Callable[[Params, Site, Array], Array] | None = None


@dataclass(frozen=True)
class ModelParts:
    """A network as algorithms see it: segments of stacked blocks, then a head that gives logits [B, C].

    `features` is the site of the head that its classifiers read, [B, ...]. Empty: none is declared.
    """

    segments: tuple[Segment, ...]
    head: Callable[[Params, Site, Array], Array]
    roles: SiteRoles = SiteRoles()
    channels: tuple[Channels, ...] = ()  # what initialisers may fold into
    features: str = ""


def num_blocks(parts: ModelParts) -> int:
    """The number of blocks of the whole network."""
    return sum(segment.length for segment in parts.segments)


def blocks_before(parts: ModelParts, segment_number: int, block: int) -> int:
    """The number of blocks before block `block` of a segment: its number in the whole network."""
    return num_blocks(parts) - blocks_run(parts, segment_number, block)


def blocks_run(parts: ModelParts, segment_number: int, block: int) -> int:
    """The number of blocks from block `block` of a segment on, including this block."""
    later = sum(segment.length for segment in parts.segments[segment_number + 1 :])
    return parts.segments[segment_number].length - block + later
