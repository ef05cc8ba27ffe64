"""Where a search begins instead of at the init: weight ranges found by their layers' outputs."""

from dataclasses import replace

import numpy as np
from jax.sharding import Mesh

from evolq_jax.calibration.layerwise import walk as run_walk
from evolq_jax.calibration.link import Calibration, State, WalkConfig
from evolq_jax.calibration.links.own_output import OWN_OUTPUT, block_images
from evolq_jax.devices.mesh import fetch, gather, replicate
from evolq_jax.network.parts import ModelParts
from evolq_jax.quant.spec import Specs
from evolq_jax.quantized.calibrate import in_batches
from evolq_jax.quantized.network import QuantizedNetwork
from evolq_jax.search.config import SearchConfig
from evolq_jax.search.proposal import Proposal
from evolq_jax.search.space import searched_sites
from evolq_jax.typing import Progress, no_progress


def searched_weights(parts: ModelParts, specs: Specs, search: SearchConfig) -> frozenset[str]:
    """The weights of linear layers whose ranges `search.output_start` finds anew."""
    if not search.output_start:
        return frozenset()
    layers = {
        f"{segment.name}/{linear.name}/weight" for segment in parts.segments for linear in segment.linears
    }
    return frozenset(layers & set(searched_sites(parts, specs, search.sites)))


def output_start(
    quantized: QuantizedNetwork,
    pixels: np.ndarray,
    chosen: frozenset[str],
    *,
    walk: WalkConfig | None = None,
    image_chunk: int = 10,
    mesh: Mesh | None = None,
    progress: Progress = no_progress,
) -> Proposal:
    """Scales of the whole network to begin with, and what finding them has cost.

    Args:
      quantized: the calibrated network, with weights that no link has corrected.
      pixels: the images that candidates are scored on, uint8 [B, height, width, channels].
      chosen: the weights whose ranges are found anew: see `searched_weights`.
      walk: how the walk through the layers weighs errors; None: `WalkConfig()`.
      image_chunk: images run at once on a device.
      mesh: devices that share the images; None: one.
      progress: told the layers done.
    """
    network = quantized.network
    batches = in_batches(network, pixels, len(pixels), mesh)
    calibration = Calibration(
        network.parts,
        quantized.specs,
        network.sites,
        batches.images,
        image_chunk,
        mesh=batches.mesh,
        progress=progress,
    )
    params, qparams = replicate(batches.mesh, (quantized.params, quantized.qparams))
    link = replace(OWN_OUTPUT, walk=walk or WalkConfig())
    found = run_walk((link,), calibration, State(params, params, qparams), chosen)
    found_qparams = fetch(batches.mesh, gather(batches.mesh, found.qparams))
    return Proposal(found_qparams, block_images(network.parts, network.sites, chosen, len(pixels)))
