"""A network with first scales: calibrated, read from a run, or the result that another run ended with."""

import time
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from evolq_jax.calibration.calibrate import calibrate
from evolq_jax.devices.layout import Layout
from evolq_jax.devices.mesh import DATA, fetch, gather, image_mesh, put_rows, replicate, spread
from evolq_jax.network.run import normalize
from evolq_jax.network.walk import embed
from evolq_jax.pipeline.images import check_batches, load_calibration
from evolq_jax.pipeline.load import Setup
from evolq_jax.pipeline.logits import quantize_weights
from evolq_jax.pipeline.watcher import Progress, Watcher
from evolq_jax.quant.qparams import QParams
from evolq_jax.quant.sites import quant_sites
from evolq_jax.typing import Array, Images, Params


class Calibrated(NamedTuple):
    """A network with first scales, and the calibration images they came from."""

    setup: Setup
    params: Params
    qparams: QParams
    images: Images
    seconds: float


def calibrate_setup(setup: Setup, watcher: Watcher, *, for_search: bool) -> Calibrated:
    """Loads the calibration images and runs the chain of initialisers.

    Raises:
      UserError: the images cannot be read, or do not fill whole batches.
    """
    config = setup.config
    images = load_calibration(setup, watcher.stage("decoding calibration images"))
    check_batches(config, len(images.pixels), for_search=for_search, skipped=len(images.skipped))
    began = time.monotonic()
    batches = normalised(setup, images.pixels, config.calibration.batch_size)

    def stage(name: str) -> Progress:
        return watcher.stage(f"calibrating ({name})")

    found = calibrate(
        setup.model.parts,
        setup.specs,
        replicate(batches.mesh, setup.model.params),
        batches.images,
        sites=setup.sites,
        chain=config.calibration.links,
        chunk=config.calibration.image_chunk,
        seed=config.seed,
        mesh=batches.mesh,
        stage=stage,
    )
    params, qparams = fetch(batches.mesh, gather(batches.mesh, (found.params, found.qparams)))
    jax.block_until_ready(qparams)
    return Calibrated(setup, params, qparams, images, time.monotonic() - began)


class Batches(NamedTuple):
    """Normalised images in batches, on the devices that share them (None: one)."""

    images: list[Array]  # [B, height, width, channels] each
    mesh: Mesh | None


def normalised(setup: Setup, pixels: np.ndarray, batch_size: int) -> Batches:
    """Images in batches of a size that divides them, as the network reads them."""
    preprocess = jax.jit(partial(normalize, setup.model.preprocessing))
    mesh = None if setup.mesh is None else image_mesh(setup.mesh, batch_size)
    batches = [pixels[i : i + batch_size] for i in range(0, len(pixels), batch_size)]
    on_devices = (jnp.asarray(batch) if mesh is None else put_rows(mesh, DATA, batch) for batch in batches)
    return Batches([preprocess(batch) for batch in on_devices], mesh)


def first_tokens(calibrated: Calibrated, layout: Layout | None = None) -> Array:
    """The calibration images at the first block's input, quantized at the first scales [B, ...].

    With a layout they lie on the devices as it says.
    """
    setup, specs = calibrated.setup, calibrated.setup.specs
    chunk, _ = setup.config.search.chunks()
    mesh = None if layout is None else layout.mesh
    enter = partial(embed, setup.model.parts, quant_sites(specs), chunk, setup.model.preprocessing)
    enter = jax.jit(spread(mesh, enter, (P(), P(), P(DATA)), P(DATA)))
    params, qparams = replicate(mesh, (calibrated.params, calibrated.qparams))
    pixels = calibrated.images.pixels
    on_devices = jnp.asarray(pixels) if layout is None else layout.put(pixels)
    return enter(quantize_weights(specs, params, qparams), qparams, on_devices)
