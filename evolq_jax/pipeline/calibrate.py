"""A network with first scales: calibrated, read from a run, or the result that another run ended with."""

import time
from typing import NamedTuple

from evolq_jax.devices.placement import Placement
from evolq_jax.pipeline.images import check_batches, load_calibration
from evolq_jax.pipeline.load import Setup
from evolq_jax.pipeline.watcher import Watcher
from evolq_jax.quant.qparams import QParams
from evolq_jax.quant.spec import with_codes
from evolq_jax.quantized.calibrate import calibrate
from evolq_jax.quantized.network import QuantizedNetwork
from evolq_jax.quantized.search import entry_tokens
from evolq_jax.typing import Array, Images, Params, Progress


class Calibrated(NamedTuple):
    """A network with first scales, and the calibration images they came from.

    Attributes:
      setup: the float network and the quantizers.
      params: the parameters that the scales are for.
      qparams: the scales after the chain.
      ranges: those after the chain's first link, for the float parameters; None: it has no other link.
      images: the calibration images.
      seconds: that calibration took.
    """

    setup: Setup
    params: Params
    qparams: QParams
    ranges: QParams | None
    images: Images
    seconds: float

    @property
    def quantized(self) -> QuantizedNetwork:
        """The quantized network."""
        return QuantizedNetwork(self.setup.model, self.params, self.qparams, self.setup.specs)

    def stages(self, final: QParams | None) -> dict[str, QuantizedNetwork]:
        """The networks on the way from float to the end; see `stages_of`."""
        return stages_of(self.setup, self.params, ranges=self.ranges, init=self.qparams, final=final)


def stages_of(
    setup: Setup, params: Params, *, ranges: QParams | None, init: QParams, final: QParams | None
) -> dict[str, QuantizedNetwork]:
    """The networks on the way from float to the end, by name: `ranges`, `init` and `final`.

    Args:
      setup: the float network and the quantizers.
      params: the parameters after the chain.
      ranges: scales after the chain's first link, for the float parameters; None: there are none.
      init: scales after the chain.
      final: the scales at the end; None: there are none.
    """
    after = {"init": init} if final is None else {"init": init, "final": final}
    found = {name: QuantizedNetwork(setup.model, params, one, setup.specs) for name, one in after.items()}
    if ranges is None:
        return found
    specs = with_codes(setup.specs, ())
    return {"ranges": QuantizedNetwork(setup.model, setup.model.params, ranges, specs)} | found


def calibrate_setup(setup: Setup, watcher: Watcher, *, for_search: bool) -> Calibrated:
    """Loads the calibration images and runs the chain of initialisers.

    Raises:
      UserError: the images cannot be read, or do not fill whole batches.
    """
    config, links = setup.config, setup.config.calibration.links
    images = load_calibration(setup, watcher.stage("decoding calibration images"))
    check_batches(config, len(images.pixels), for_search=for_search, skipped=len(images.skipped))
    began = time.monotonic()

    def stage(name: str) -> Progress:
        return watcher.stage(f"calibrating ({name})")

    ranges: list[QParams] = []

    def keep_first(name: str, network: QuantizedNetwork) -> None:
        del name
        if not ranges:
            ranges.append(network.qparams)

    quantized = calibrate(
        setup.model,
        images,
        config.quant,
        chain=links,
        batch_size=config.calibration.batch_size,
        image_chunk=config.calibration.image_chunk,
        seed=config.seed,
        mesh=setup.mesh,
        stage=stage,
        on_step=keep_first if len(links) > 1 else None,
    )
    seconds = time.monotonic() - began
    first = ranges[0] if ranges else None
    return Calibrated(setup, quantized.params, quantized.qparams, first, images, seconds)


def first_tokens(calibrated: Calibrated, placement: Placement | None = None) -> Array:
    """The calibration images at the first block's input, quantized at the first scales [B, ...]."""
    chunk, _ = calibrated.setup.config.search.chunks()
    return entry_tokens(calibrated.quantized, calibrated.images.pixels, chunk, placement)
