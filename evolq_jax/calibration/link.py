"""A link of the calibration chain as one record; also what links are given, and what they change.

To add a link, write one more record: a `NetworkLink` for a function of the whole network, or a `LayerLink`
for a function of one layer. Put it into a chain in place of a name.
"""

from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, is_dataclass
from functools import cache
from typing import Any, Literal, NamedTuple

import jax
from jax.sharding import Mesh

from evolq_jax.calibration.layer import Layer, Moments
from evolq_jax.devices.mesh import gather
from evolq_jax.errors import UserError
from evolq_jax.named import only_name_recorded
from evolq_jax.network.parts import ModelParts
from evolq_jax.quant.qparams import QParams
from evolq_jax.quant.spec import QuantSpec, Specs
from evolq_jax.typing import Array, Params, Progress, SiteInfo, no_progress

TokenWeighting = Literal["fisher", "stream", "equal"]

WALK = 9  # forward passes for each image that a walk through the layers takes, measured on ViT-Tiny


class Calibration(NamedTuple):
    """The fixed surroundings of a chain.

    Attributes:
      parts: the network.
      specs: what to quantize, resolved for this network.
      sites: the network's quantization points.
      batches: normalised calibration images, each [B, height, width, channels].
      chunk: images run at once on a device (bounds memory; changes results by rounding at most).
      seed: of the random draws that links make.
      mesh: devices; the images of each batch are spread over its data axis in equal shares. None: one device.
      progress: called with (steps done, steps in all).
    """

    parts: ModelParts
    specs: Specs
    sites: dict[str, SiteInfo]
    batches: Sequence[Array]
    chunk: int
    seed: int = 0
    mesh: Mesh | None = None
    progress: Progress = no_progress


def whole(calibration: Calibration) -> Calibration:
    """The same with all images on every device, for links that depend on how images are put together."""
    if calibration.mesh is None:
        return calibration
    return calibration._replace(batches=gather(calibration.mesh, list(calibration.batches)), mesh=None)


class State(NamedTuple):
    """The state that a link changes.

    Attributes:
      params: the parameters that are quantized with `qparams`. Links may correct them.
      reference: the float parameters of the network to imitate. Links may rescale, but never correct them.
      qparams: the quantizers' numbers so far.
    """

    params: Params
    reference: Params
    qparams: QParams


class Cost(NamedTuple):
    """The cost of a link, in images through the whole float network and through the quantized one."""

    floating: float = 0
    quantized: float = 0


class Need(NamedTuple):
    """What a link needs of a network, and the message if the network does not have it."""

    is_met: Callable[[ModelParts], bool]
    reason: str


class NotAfter(NamedTuple):
    """The earlier links that a link must not follow, and what it would do to their work."""

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
    """What a chain knows about a link. `NetworkLink` and `LayerLink` add the function.

    Attributes:
      name: the name that chains use.
      does: what the link does, in one sentence without a full stop.
      settings: the link's own settings, a frozen dataclass; None: it has none.
      changes_params: whether the link changes parameters.
      corrects: whether it changes them to make up, inside a layer, for what quantization loses.
      rounds: whether it leaves weights on their grid. Then the integers of all weights are decided.
      first: whether it needs no scales, so that a chain can begin with it.
      last: whether it makes up for what all others leave, so that no link may follow.
      not_after: the earlier links that it must not follow; None: it may follow any link.
      needs: what it needs of a network.
      shares_images: whether several devices each run their share of the images. Otherwise each runs all.
      cost: `(parts, specs, settings, num_images) -> Cost`. Neighbouring layer links share the cost of a walk.
      check: `(parts, specs, settings)`; raises a UserError if the link cannot run. It computes nothing.
      added_parameters: `(parts, params, image_shape) -> int`: the number of parameters that the link adds.
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


@cache  # so that equal names give equal configs
def recorded_link(name: str) -> Link:
    """Stands in for a link whose name alone is recorded. A chain that holds it is refused before it runs."""

    def refuse(parts: ModelParts, specs: Specs, settings: Any) -> None:
        del parts, specs, settings
        raise only_name_recorded(name, "link")

    return Link(name, "is recorded by its name alone", first=True, check=refuse)


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
    """How a walk through the layers weighs errors (see `layerwise`).

    Attributes:
      pull: the share of the residual stream's error so far that is corrected at the end of each branch.
      token_weights: what weighs the errors of tokens.
    """

    pull: float = 0.9
    token_weights: TokenWeighting = "fisher"


@dataclass(frozen=True)
class LayerLink(Link):
    """A link that changes one layer after the other, in the order of the forward pass.

    Neighbouring layer links with the same `walk` share one walk: all of them change a layer before the next
    layer comes.

    Attributes:
      function: `(spec, moments, layer, settings)` gives the new layer. A spec of None is a float weight. The
        function runs inside `jit`, and `settings` are traced, so make them a `flax.struct.dataclass`.
      shared_ranges: whether the link also works on a convolution whose groups share one range.
      walk: how the walk weighs errors.
    """

    function: LayerFunction
    _: KW_ONLY
    shared_ranges: bool = False
    walk: WalkConfig = WalkConfig()
    needs: tuple[Need, ...] = (LINEARS,)
    shares_images: bool = True
    cost: Callable[[ModelParts, Specs, Any, int], Cost] = _walk_cost

    def __post_init__(self) -> None:
        """Refuses settings that cannot be traced."""
        if any(is_dataclass(leaf) for leaf in jax.tree.leaves(self.settings)):
            raise UserError(
                f"the settings of the layer link '{self.name}' enter a jitted function: make their class a "
                "flax.struct.dataclass"
            )
