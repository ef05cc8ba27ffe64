"""Where a search begins instead of at the init: weight ranges found by their layers' outputs."""

import math
from collections.abc import Callable
from dataclasses import replace

from evolq_jax.calibration.layerwise import walk
from evolq_jax.calibration.link import Calibration, State
from evolq_jax.calibration.links.own_output import NUM_CANDIDATES, OWN_OUTPUT
from evolq_jax.devices.mesh import fetch, gather, replicate
from evolq_jax.gradient.config import BACKWARD
from evolq_jax.network.parts import Linear
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
    return Proposal(found_qparams, block_images(setup, chosen, count))


def block_images(setup: Setup, chosen: frozenset[str], num_images: int) -> int:
    """What `output_start` costs, in images through one block.

    At each layer, and behind each block, all images run through the float and the quantized block, and once
    through a gradient. The moments of a layer's input and the comparison of ranges count by their
    multiplications, relative to those of an image through the block's layers.
    """
    if not chosen:
        return 0
    total = 0
    for segment in setup.model.parts.segments:
        layers = [linear for linear in segment.linears if f"{segment.name}/{linear.name}/weight" in chosen]
        passes = num_images * (2 * (len(layers) + 1) + 1 + BACKWARD)
        an_image = sum(_multiplications(setup, segment.name, linear)[0] for linear in segment.linears)
        costs = [_multiplications(setup, segment.name, linear) for linear in layers]
        moments = num_images * sum(layer + moments for layer, moments, _ in costs)
        products = (moments + sum(comparison for _, _, comparison in costs)) / max(an_image, 1)
        total += segment.length * (passes + math.ceil(products))
    return total


def _multiplications(setup: Setup, segment: str, linear: Linear) -> tuple[int, int, int]:
    """Of a layer on one image, of its input's second moments on one, and of comparing its ranges."""
    *kernel, inside, outside = setup.sites[f"{segment}/{linear.name}/weight"].shape
    inside *= math.prod(kernel)
    named = (setup.sites.get(f"{segment}/{site}") for site in (linear.source, linear.name))
    shape = next((info.shape for info in named if info is not None), (1,))
    tokens = math.prod(shape[:-1])
    return tokens * inside * outside, tokens * inside**2, NUM_CANDIDATES * inside**2 * outside
