"""Logits of a network over many images, in bounded memory."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from evolq_jax.devices import hosts
from evolq_jax.devices.ahead import compile_ahead, shapes_of
from evolq_jax.devices.mesh import AXES, put_rows, replicate, spread
from evolq_jax.network.network import Network
from evolq_jax.network.parts import ModelParts
from evolq_jax.network.point import at_qparams
from evolq_jax.network.reading import Reading
from evolq_jax.network.run import normalize, with_features
from evolq_jax.network.walk import whole_logits
from evolq_jax.quant.qparams import QParams
from evolq_jax.quant.sites import integer_norm_sites, quant_sites
from evolq_jax.quant.spec import Specs
from evolq_jax.quantized.network import QuantizedNetwork
from evolq_jax.trees import flatten
from evolq_jax.typing import Array, Params, Preprocessing, Progress, no_progress


class _Static(NamedTuple):
    """The static settings of one batch's program."""

    parts: ModelParts
    specs: Specs
    preprocessing: Preprocessing
    integer_norm_only: bool
    features: bool


@partial(jax.jit, static_argnames=("static", "mesh"))
def _batch_logits(
    static: _Static, params: Params, qparams: QParams, pixels: Array, *, mesh: Mesh | None
) -> Array:
    make_site = (integer_norm_sites if static.integer_norm_only else quant_sites)(static.specs)

    def on_device(params: Params, qparams: QParams, pixels: Array) -> Array:
        reading = Reading(make_site, params, qparams)
        run = partial(whole_logits, static.parts, images=normalize(static.preprocessing, pixels))
        found = with_features(static.parts, reading, run)[1] if static.features else run(reading)
        return found if mesh is None else jax.lax.all_gather(found, AXES, tiled=True)

    return spread(mesh, on_device, (P(), P(), P(AXES)), P())(params, qparams, pixels)


def compute_logits(
    network: Network | QuantizedNetwork,
    pixels: np.ndarray,
    batch_size: int,
    *,
    integer_norm_only: bool = False,
    features: bool = False,
    mesh: Mesh | None = None,
    first: int | None = None,
    progress: Progress = no_progress,
) -> np.ndarray:
    """Logits [B, C] of a float or a quantized network on uint8 images [B, height, width, channels].

    The last batch is padded, and the padding is dropped.

    Args:
      network: the network.
      pixels: the images; they may be memory-mapped.
      batch_size: images that run at once, on each device of a mesh.
      integer_norm_only: give the released code's teacher of a quantized network: float weights and
        activations, integer LayerNorm.
      features: give the features [B, ...] that the classifiers read, in place of the logits.
      mesh: devices that share each batch; None: one.
      first: with it, a process has only its own rows of the B images, from this row on. All get all logits.
      progress: called with (images done, images in all).
    """
    static, params, qparams = _parts_of(network, integer_norm_only=integer_norm_only, features=features)
    params, qparams = replicate(mesh, (params, qparams))
    if isinstance(network, QuantizedNetwork) and not integer_norm_only:
        params = at_qparams(network.specs, params, replicate(mesh, network.qparams)).quantized
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

    running: Callable[[], None] | None = None
    for rows, mask in _batch_rows(mesh, shares, batch_size):
        own = rows - held[0, 0]
        images = jax.device_put(pixels[own]) if mesh is None else put_rows(mesh, AXES, pixels, own)
        logits = _batch_logits(static, params, qparams, images, mesh=mesh)
        if running is not None:  # one batch behind: the next is read from disk while the device works
            running()
        running = partial(collect, logits, rows, mask)
    if running is not None:
        running()
    assert found is not None  # no set of images is empty
    return found


def compile_logits_ahead(network: Network | QuantizedNetwork, num_images: int, batch_size: int) -> None:
    """Begins to compile what `compute_logits` runs on so many images on one device."""
    static, params, qparams = _parts_of(network, integer_norm_only=False, features=False)
    floats = network if isinstance(network, Network) else network.network
    pixels = jax.ShapeDtypeStruct((min(batch_size, num_images), *floats.image_shape), np.uint8)
    arguments = shapes_of((params, qparams))
    compile_ahead(lambda: _batch_logits.lower(static, *arguments, pixels, mesh=None))


def _parts_of(
    network: Network | QuantizedNetwork, *, integer_norm_only: bool, features: bool
) -> tuple[_Static, Params, QParams]:
    """Static settings, parameters, and the numbers of the activations' quantizers; of a float network none.

    How weights are quantized is left out, so that one program serves networks that differ in that alone.
    """
    if isinstance(network, Network):
        return _Static(network.parts, (), network.preprocessing, False, features), network.params, {}
    floats, weights = network.network, flatten(network.params)
    specs = tuple((name, spec) for name, spec in network.specs if name not in weights)
    static = _Static(floats.parts, specs, floats.preprocessing, integer_norm_only, features)
    qparams = {name: network.qparams[name] for name, _ in specs}
    return static, floats.params if integer_norm_only else network.params, qparams


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
