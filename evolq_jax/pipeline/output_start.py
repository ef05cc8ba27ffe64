"""Where a search begins instead of at the init: weight ranges found by their layers' outputs."""

from collections.abc import Callable
from dataclasses import replace

from evolq_jax.calibration.layerwise import walk
from evolq_jax.calibration.link import Calibration, State
from evolq_jax.calibration.links.own_output import OWN_OUTPUT, block_images
from evolq_jax.devices.mesh import fetch, gather, replicate
from evolq_jax.pipeline.calibrate import Calibrated
from evolq_jax.pipeline.load import Setup
from evolq_jax.pipeline.searched import searched_sites
from evolq_jax.pipeline.watcher import Watcher
from evolq_jax.quantized.calibrate import in_batches
from evolq_jax.search.records import Proposal


def searched_weights(setup: Setup) -> frozenset[str]:
    """The weights whose ranges `search.output_start` finds anew; none where calibration changed weights."""
    config = setup.config
    if not config.search.output_start or any(link.corrects for link in config.calibration.links):
        return frozenset()
    layers = {
        f"{segment.name}/{linear.name}/weight"
        for segment in setup.model.parts.segments
        for linear in segment.linears
    }
    return frozenset(layers & set(searched_sites(setup)))


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
    count = len(calibrated.images.pixels)
    count -= config.search.num_held_out(count)
    batches = in_batches(setup.model, calibrated.images.pixels[:count], count, setup.mesh)
    told = watcher.stage("searching ranges by outputs")

    def progress(done: int, total: int) -> None:
        check()
        told(done, total)

    calibration = Calibration(
        setup.model.parts,
        setup.specs,
        setup.sites,
        batches.images,
        config.calibration.image_chunk,
        mesh=batches.mesh,
        progress=progress,
    )
    params, qparams = replicate(batches.mesh, (calibrated.params, calibrated.qparams))
    link = replace(OWN_OUTPUT, walk=config.calibration.walk)
    found = walk((link,), calibration, State(params, params, qparams), chosen)
    found_qparams = fetch(batches.mesh, gather(batches.mesh, found.qparams))
    return Proposal(found_qparams, block_images(setup.model.parts, setup.sites, chosen, count))
