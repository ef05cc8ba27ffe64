"""A network with first scales: calibrated, read from a run, or the result that another run ended with."""

import time
from typing import NamedTuple

from evolq_jax.devices.placement import Placement
from evolq_jax.pipeline.images import check_batches, load_calibration
from evolq_jax.pipeline.load import Setup
from evolq_jax.pipeline.watcher import Watcher
from evolq_jax.quant.qparams import QParams
from evolq_jax.quantized.calibrate import calibrate
from evolq_jax.quantized.network import QuantizedNetwork
from evolq_jax.quantized.search import entry_tokens
from evolq_jax.typing import Array, Images, Params, Progress


class Calibrated(NamedTuple):
    """A network with first scales, and the calibration images they came from."""

    setup: Setup
    params: Params
    qparams: QParams
    images: Images
    seconds: float

    @property
    def quantized(self) -> QuantizedNetwork:
        """The quantized network."""
        return QuantizedNetwork(self.setup.model, self.params, self.qparams, self.setup.specs)


def calibrate_setup(setup: Setup, watcher: Watcher, *, for_search: bool) -> Calibrated:
    """Loads the calibration images and runs the chain of initialisers.

    Raises:
      UserError: the images cannot be read, or do not fill whole batches.
    """
    config = setup.config
    images = load_calibration(setup, watcher.stage("decoding calibration images"))
    check_batches(config, len(images.pixels), for_search=for_search, skipped=len(images.skipped))
    began = time.monotonic()

    def stage(name: str) -> Progress:
        return watcher.stage(f"calibrating ({name})")

    quantized = calibrate(
        setup.model,
        images,
        config.quant,
        chain=config.calibration.links,
        batch_size=config.calibration.batch_size,
        image_chunk=config.calibration.image_chunk,
        seed=config.seed,
        mesh=setup.mesh,
        stage=stage,
    )
    seconds = time.monotonic() - began
    return Calibrated(setup, quantized.params, quantized.qparams, images, seconds)


def first_tokens(calibrated: Calibrated, placement: Placement | None = None) -> Array:
    """The calibration images at the first block's input, quantized at the first scales [B, ...]."""
    chunk, _ = calibrated.setup.config.search.chunks()
    return entry_tokens(calibrated.quantized, calibrated.images.pixels, chunk, placement)
