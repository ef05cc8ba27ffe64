"""What the links of the chain are given, and what they change."""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from jax.sharding import Mesh

from evolq_jax.calibration.links.clip_config import ClipConfig
from evolq_jax.calibration.reconstruction.config import BrecqConfig
from evolq_jax.devices.mesh import gather
from evolq_jax.network.parts import ModelParts
from evolq_jax.quant.qparams import QParams
from evolq_jax.quant.spec import Specs
from evolq_jax.typing import Array, Params, SiteInfo

Progress = Callable[[int, int], None]  # (steps done, steps in all)
TokenWeighting = Literal["fisher", "stream", "equal"]


class Calibration(NamedTuple):
    """The fixed surroundings of a chain.

    Attributes:
      parts: the network.
      specs: what to quantize, resolved for this network.
      sites: the network's quantization points.
      batches: normalised calibration images, each [B, height, width, channels].
      chunk: images run at once on a device (bounds memory; changes results by rounding at most).
      damping: how strongly `ridge` holds on to the float weights, relative to each input channel's own
        second moment.
      pull: share of the residual stream's error so far that `ridge` and `bias` correct at the end of
        each branch.
      token_weights: what layer-wise links weigh errors of tokens by (see `layerwise`).
      fisher: whether `ranges` weighs squared errors by how much values matter (see `fisher.importance`).
      brecq: settings of block reconstruction.
      clip: settings of the search for clip ratios.
      seed: of the random draws that links make.
      mesh: whose data axis each batch's images are spread over, in equal shares; None: one device.
      progress: told the steps done.
    """

    parts: ModelParts
    specs: Specs
    sites: dict[str, SiteInfo]
    batches: Sequence[Array]
    chunk: int
    damping: float = 3.0
    pull: float = 0.9
    token_weights: TokenWeighting = "fisher"
    fisher: bool = False
    brecq: BrecqConfig = BrecqConfig()
    clip: ClipConfig = ClipConfig()
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
      params: parameters to quantize with `qparams`; compensated once a link has done so.
      reference: float parameters of the network to imitate: folded where links fold, never compensated.
      scales: the quantizers' numbers so far.
    """

    params: Params
    reference: Params
    qparams: QParams


Initialiser = Callable[[Calibration, State], State]
