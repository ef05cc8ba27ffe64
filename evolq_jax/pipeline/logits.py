"""Logits of a network over many images, in bounded memory."""

from collections.abc import Iterator
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from evolq_jax.devices import hosts
from evolq_jax.devices.mesh import AXES, put_rows, replicate, spread
from evolq_jax.network.parts import ModelParts
from evolq_jax.network.run import forward, normalize, with_features
from evolq_jax.pipeline.watcher import Progress, no_progress
from evolq_jax.quant.qparams import QParams
from evolq_jax.quant.sites import SiteFactory, fake_quant_weights, integer_norm_sites, quant_sites
from evolq_jax.quant.spec import Specs
from evolq_jax.typing import Array, Params, Preprocessing


@partial(
    jax.jit, static_argnames=("parts", "specs", "preprocessing", "integer_norm_only", "features", "mesh")
)
def _batch_logits(
    parts: ModelParts,
    specs: Specs,
    preprocessing: Preprocessing,
    integer_norm_only: bool,
    params: Params,
    qparams: QParams,
    pixels: Array,
    features: bool,
    mesh: Mesh | None,
) -> Array:
    make_site = integer_norm_sites(specs) if integer_norm_only else quant_sites(specs)

    def on_device(params: Params, qparams: QParams, pixels: Array) -> Array:
        def run(make_site: SiteFactory) -> Array:
            return forward(parts, make_site, params, qparams, normalize(preprocessing, pixels))

        found = with_features(parts, make_site, run)[1] if features else run(make_site)
        return found if mesh is None else jax.lax.all_gather(found, AXES, tiled=True)

    return spread(mesh, on_device, (P(), P(), P(AXES)), P())(params, qparams, pixels)


@partial(jax.jit, static_argnames=("specs",))
def quantize_weights(specs: Specs, params: Params, qparams: QParams) -> Params:
    """`fake_quant_weights`, compiled."""
    return fake_quant_weights(specs, params, qparams)


def compute_logits(
    parts: ModelParts,
    specs: Specs,
    preprocessing: Preprocessing,
    params: Params,
    qparams: QParams,
    pixels: np.ndarray,
    batch_size: int,
    progress: Progress = no_progress,
    *,
    integer_norm_only: bool = False,
    features: bool = False,
    mesh: Mesh | None = None,
    first: int | None = None,
) -> np.ndarray:
    """Logits [B, C] of uint8 images [B, height, width, channels]. `specs=()` means the float network.

    The last batch is padded, and the padding is dropped. With a mesh, each device runs `batch_size` images.

    - `integer_norm_only` gives the released code's teacher: float weights and activations, integer LayerNorm.
    - `features` gives the features [B, ...] that the classifiers read, in place of the logits.
    - With `first`, a process has only its own rows of the B images, from this row on. All get all logits.
    """
    params, qparams = replicate(mesh, (params, qparams))
    if not integer_norm_only:
        params = quantize_weights(specs, params, qparams)
    held = np.asarray([[first or 0, len(pixels)]])
    shares = held if first is None else hosts.gather(held)
    found: np.ndarray | None = None
    done, total = 0, int(shares[:, 1].sum())

    def collect(logits: Array, rows: np.ndarray, mask: np.ndarray) -> None:
        nonlocal found, done
        values = np.asarray(logits)[mask]  # waits for the device
        found = np.empty((total, *values.shape[1:]), values.dtype) if found is None else found
        found[rows[mask]] = values
        done += len(values)
        progress(done, total)

    running: tuple[Array, np.ndarray, np.ndarray] | None = None
    for rows, mask in _batch_rows(mesh, shares, batch_size):
        own = rows - held[0, 0]
        images = jnp.asarray(pixels[own]) if mesh is None else put_rows(mesh, AXES, pixels, own)
        settings = parts, specs, preprocessing, integer_norm_only
        logits = _batch_logits(*settings, params, qparams, images, features, mesh)
        if running is not None:  # one batch behind: the next is read from disk while the device works
            collect(*running)
        running = logits, rows, mask
    if running is not None:
        collect(*running)
    assert found is not None  # no set of images is empty
    return found


def _batch_rows(
    mesh: Mesh | None, shares: np.ndarray, batch_size: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The images of each batch, device by device, and a mask that is False for padding.

    `shares` [processes, 2] are the first image and the number of images of each process, whose devices run
    its own images, or of all processes together.
    """
    devices = [None] if mesh is None else list(mesh.devices.flat)
    owners = [device.process_index if device and len(shares) > 1 else 0 for device in devices]
    ranks = np.asarray([owners[:place].count(owner) for place, owner in enumerate(owners)])[:, None]
    width = np.bincount(owners)  # devices of each process
    first, counts = shares[owners, :1], shares[owners, 1:]
    size = min(batch_size, int(np.ceil(shares[:, 1] / width).max()))
    for step in range(int(np.ceil(shares[:, 1] / (width * size)).max())):
        dealt = (step * width[owners, None] + ranks) * size + np.arange(size)
        yield (first + np.minimum(dealt, counts - 1)).ravel(), (dealt < counts).ravel()
