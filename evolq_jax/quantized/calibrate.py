"""From a float network and a few images to a quantized network."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from evolq_jax.calibration.calibrate import calibrate as run_chain
from evolq_jax.calibration.chain import CORRECTED, find_links, specs_after
from evolq_jax.calibration.link import Link, State
from evolq_jax.devices.mesh import DATA, fetch, gather, image_mesh, put_rows, replicate
from evolq_jax.devices.precision import matmul_precision
from evolq_jax.network.chunks import usual_batch
from evolq_jax.network.network import Network
from evolq_jax.network.run import normalize
from evolq_jax.quant.qparams import QParams, blank_qparams, with_bits
from evolq_jax.quant.scheme import QuantConfig, resolve
from evolq_jax.quant.spec import with_codes
from evolq_jax.quantized.network import QuantizedNetwork
from evolq_jax.typing import Array, Images, Params, Preprocessing, Progress, no_progress

LARGEST_BATCH = 100  # images that observers usually see at once, where no batch size is given


class Batches(NamedTuple):
    """Normalised images in batches, on the devices that share them (None: one)."""

    images: list[Array]  # [B, height, width, channels] each
    mesh: Mesh | None


def in_batches(network: Network, pixels: np.ndarray, batch_size: int, mesh: Mesh | None = None) -> Batches:
    """Normalised images in batches. The batch size divides their number."""
    mesh = None if mesh is None else image_mesh(mesh, batch_size)
    batches = [pixels[i : i + batch_size] for i in range(0, len(pixels), batch_size)]
    on_devices = (jax.device_put(batch) if mesh is None else put_rows(mesh, DATA, batch) for batch in batches)
    return Batches([_normalised(network.preprocessing, batch) for batch in on_devices], mesh)


@partial(jax.jit, static_argnames=("preprocessing",))
def _normalised(preprocessing: Preprocessing, pixels: Array) -> Array:
    return normalize(preprocessing, pixels)


def pixels_of(images: Images | np.ndarray | Array) -> np.ndarray:
    """The uint8 pixels [B, height, width, channels] of loaded images. An array is taken as it is."""
    return np.asarray(images.pixels if isinstance(images, Images) else images)


def calibrate(
    network: Network,
    images: Images | np.ndarray | Array,
    quant: QuantConfig | None = None,
    *,
    chain: Sequence[str | Link] = CORRECTED,
    bits: Mapping[str, int | Array | np.ndarray] | None = None,
    batch_size: int | None = None,
    image_chunk: int = 10,
    seed: int = 0,
    mesh: Mesh | None = None,
    stage: Callable[[str], Progress] = lambda name: no_progress,
    on_step: Callable[[str, QuantizedNetwork], None] | None = None,
) -> QuantizedNetwork:
    """Finds every quantizer's numbers by a chain of links. Links may also correct and round weights.

    Args:
      network: the float network.
      images: calibration images, uint8. Labels are not used.
      quant: which sites are quantized, and how; None: `QuantConfig()`.
      chain: links in order, by name or as objects (`evolq_jax.calibration.chain.LINKS`). The default is the
        best known.
      bits: bits of single sites, in place of those of `quant`. For a site of blocks, an array [L] gives each
        block its own bits. Other bits compile no new program.
      batch_size: images that observers see at once. It divides the number of images. None: `usual_batch`, up
        to `LARGEST_BATCH`.
      image_chunk: images run at once on a device. It bounds memory, and changes results by rounding at most.
      seed: of the random draws that links make.
      mesh: devices that share the images; None: one.
      stage: gives, for the name of a step of the chain, a function that is called with `(done, total)`.
      on_step: told of the network after each step, with the step's name: what each link does.

    Raises:
      UserError: a link or a site pattern is unknown, the order of the links makes no sense, or a link finds
        nothing in this network that it could change.
    """
    sites, links, pixels = network.sites, find_links(chain), pixels_of(images)
    resolved, usual = resolve(quant or QuantConfig(), sites)
    specs = specs_after(links, resolved, sites)
    blank = with_bits(blank_qparams(specs, usual, sites), bits or {})
    size = batch_size or usual_batch(len(pixels), LARGEST_BATCH)
    with matmul_precision(network.precision):
        batches = in_batches(network, pixels, size, mesh)

        def collected(state: State) -> tuple[Params, QParams]:
            return fetch(batches.mesh, gather(batches.mesh, (state.params, state.qparams)))

        def told(name: str, state: State) -> None:
            if on_step is not None:
                params, qparams = collected(state)
                on_step(name, QuantizedNetwork(network, params, qparams, with_codes(specs, ())))

        found = run_chain(
            network.parts,
            specs,
            replicate(batches.mesh, network.params),
            batches.images,
            sites=sites,
            qparams=replicate(batches.mesh, blank),
            chain=links,
            chunk=image_chunk,
            seed=seed,
            mesh=batches.mesh,
            stage=stage,
            on_step=told,
        )
        params, qparams = collected(found)
        jax.block_until_ready(qparams)
    return QuantizedNetwork(network, params, qparams, specs)
