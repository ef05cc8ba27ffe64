"""What `search.output_start` asks for in a config's search."""

from collections.abc import Callable

from evolq_jax.pipeline.calibrate import Calibrated
from evolq_jax.pipeline.load import Setup
from evolq_jax.pipeline.watcher import Watcher
from evolq_jax.quantized import output_start as library
from evolq_jax.search.proposal import Proposal


def searched_weights(setup: Setup) -> frozenset[str]:
    """The weights whose ranges are found anew; none where calibration corrected weights."""
    if any(link.corrects for link in setup.config.calibration.links):
        return frozenset()
    return library.searched_weights(setup.model.parts, setup.specs, setup.config.search)


def output_start(
    calibrated: Calibrated, watcher: Watcher, check: Callable[[], None] = lambda: None
) -> Proposal | None:
    """Scales of the whole network to begin with, from the images that candidates are scored on.

    None: no searched weight is one that this is for. `check` is called at every layer, and may raise.
    """
    setup, config = calibrated.setup, calibrated.setup.config
    chosen = searched_weights(setup)
    if not chosen:
        return None
    pixels = calibrated.images.pixels
    count = len(pixels) - config.search.num_held_out(len(pixels))
    told = watcher.stage("searching ranges by outputs")

    def progress(done: int, total: int) -> None:
        check()
        told(done, total)

    return library.output_start(
        calibrated.quantized,
        pixels[:count],
        chosen,
        walk=config.calibration.walk,
        image_chunk=config.calibration.image_chunk,
        mesh=setup.mesh,
        progress=progress,
    )
