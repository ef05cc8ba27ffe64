"""A link of the calibration chain as one record, and what links are given and change.

A new link is one record more: a `NetworkLink` for a function of the whole network, a `LayerLink` for one of a
single layer. It goes into a chain in the place of a name.
"""

from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, Literal, NamedTuple

from jax.sharding import Mesh

from evolq_jax.calibration.layer import Layer, Moments
from evolq_jax.devices.mesh import gather
from evolq_jax.network.parts import ModelParts
from evolq_jax.quant.qparams import QParams
from evolq_jax.quant.spec import QuantSpec, Specs
from evolq_jax.typing import Array, Params, SiteInfo

Progress = Callable[[int, int], None]  # (steps done, steps in all)
TokenWeighting = Literal["fisher", "stream", "equal"]

WALK = 20  # forward passes for each image that a walk through the layers takes, measured on ViT-Tiny


class Calibration(NamedTuple):
    """The fixed surroundings of a chain.

    Attributes:
      parts: the network.
      specs: what to quantize, resolved for this network.
      sites: the network's quantization points.
      batches: normalised calibration images, each [B, height, width, channels].
      chunk: images run at once on a device (bounds memory; changes results by rounding at most).
      seed: of the random draws that links make.
      mesh: whose data axis each batch's images are spread over, in equal shares; None: one device.
      progress: told the steps done.
    """

    parts: ModelParts
    specs: Specs
    sites: dict[str, SiteInfo]
    batches: Sequence[Array]
    chunk: int
    seed: int = 0
    mesh: Mesh | None = None
    progress: Progress = lambda done, total: None


def whole(calibration: Calibration) -> Calibration:
    """The same with all images on every device, for what depends on how images are put together."""
    if calibration.mesh is None:
        return calibration
    return calibration._replace(batches=gather(calibration.mesh, list(calibration.batches)), mesh=None)


class State(NamedTuple):
    """What a link returns anew.

    Attributes:
      params: parameters to quantize with `qparams`; corrected once a link has done so.
      reference: float parameters of the network to imitate: folded where links fold, never corrected.
      qparams: the quantizers' numbers so far.
    """

    params: Params
    reference: Params
    qparams: QParams


class Cost(NamedTuple):
    """What a link costs, in images through the whole network: the float one, and the quantized one."""

    floating: float = 0
    quantized: float = 0


class Need(NamedTuple):
    """What a link needs of a network, and what it tells where that is missing."""

    is_met: Callable[[ModelParts], bool]
    reason: str


class NotAfter(NamedTuple):
    """Which earlier links a link must not follow, and what it would do there."""

    forbids: Callable[["Link"], bool]
    because: str


CHANNELS = Need(
    lambda parts: bool(parts.channels),
    "rescales what linear layers read after a LayerNorm (ViT, DeiT, Swin); this network names none",
)
FLOAT_STREAM = Need(
    lambda parts: bool(parts.roles.residual),
    "adds to a residual stream in float (ViT, DeiT, Swin, LeViT); this network quantizes what its blocks "
    "give",
)
LINEARS = Need(
    lambda parts: any(segment.linears for segment in parts.segments),
    "corrects the layers that a family names (`Segment.linears`); this network names none",
)


def _no_cost(parts: ModelParts, specs: Specs, settings: Any, num_images: int) -> Cost:
    del parts, specs, settings, num_images
    return Cost()


def _walk_cost(parts: ModelParts, specs: Specs, settings: Any, num_images: int) -> Cost:
    del parts, specs, settings
    return Cost(floating=WALK * num_images)


@dataclass(frozen=True)
class Link:
    """What a chain knows of a link; `NetworkLink` and `LayerLink` add the function.

    Attributes:
      name: what chains call it.
      does: what it does, in one sentence without a full stop.
      settings: its own settings, a frozen dataclass; None: it has none.
      changes_params: whether it changes parameters.
      corrects: whether it does so to make up, inside a layer, for what quantization loses.
      rounds: whether it leaves weights on their grid: the integers of all weights are decided then.
      first: whether it starts from no scales, so that a chain can begin with it.
      last: whether it makes up for what all others leave, so that none may follow.
      not_after: which earlier links it must not follow; None: it may follow any.
      needs: what it needs of a network.
      shares_images: whether several devices each run their share of the images; otherwise each runs all.
      cost: `(parts, specs, settings, num_images) -> Cost`; neighbouring layer links share one walk's.
      check: `(parts, specs, settings)`: raises a UserError where the link cannot run; computes nothing.
      added_parameters: `(parts, params, image_shape) -> int`: numbers that it adds to the network's own;
        None: it adds none.
    """

    name: str
    does: str
    _: KW_ONLY
    settings: Any = None
    changes_params: bool = False
    corrects: bool = False
    rounds: bool = False
    first: bool = False
    last: bool = False
    not_after: NotAfter | None = None
    needs: tuple[Need, ...] = ()
    shares_images: bool = False
    cost: Callable[[ModelParts, Specs, Any, int], Cost] = _no_cost
    check: Callable[[ModelParts, Specs, Any], Any] | None = None
    added_parameters: Callable[[ModelParts, Params, tuple[int, ...]], int] | None = None


NetworkFunction = Callable[[Calibration, State, Any], State]  # the last argument are the link's settings


@dataclass(frozen=True)
class NetworkLink(Link):
    """A link that sees the whole network at once.

    Attributes:
      function: `(calibration, state, settings)` gives a new state.
    """

    function: NetworkFunction

    def __call__(self, calibration: Calibration, state: State) -> State:
        """The new state, with the link's own settings."""
        return self.function(calibration, state, self.settings)


LayerFunction = Callable[[QuantSpec | None, Moments, Layer, Any], Layer]


@dataclass(frozen=True)
class WalkConfig:
    """How a walk through the layers weighs what it sees (see `layerwise`).

    Attributes:
      pull: share of the residual stream's error so far that is corrected at the end of each branch.
      token_weights: what errors of tokens are weighed by.
    """

    pull: float = 0.9
    token_weights: TokenWeighting = "fisher"


@dataclass(frozen=True)
class LayerLink(Link):
    """A link that changes one layer after the other, in the order of the forward pass.

    Neighbouring ones with the same `walk` share a walk: all of them change a layer before the next comes.

    Attributes:
      function: `(spec, moments, layer, settings)` gives the layer anew; a spec of None is a float weight. It
        runs inside `jit`, and `settings` are traced: make them a `flax.struct.dataclass`.
      shared_ranges: whether it also serves a convolution whose groups share one range.
      walk: how the walk weighs errors.
    """

    function: LayerFunction
    _: KW_ONLY
    shared_ranges: bool = False
    walk: WalkConfig = WalkConfig()
    needs: tuple[Need, ...] = (LINEARS,)
    shares_images: bool = True
    cost: Callable[[ModelParts, Specs, Any, int], Cost] = _walk_cost
