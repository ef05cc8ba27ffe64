"""The devices of a run as one mesh: a population's candidates along one axis, images along the other.

Programs for several devices are those for one, run on every device's own share by `jax.shard_map`, with
gathers written out where all shares are needed. None in a mesh's place is one device, and no more.
"""

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from evolq_jax.errors import UserError, suggestion

CANDIDATE, DATA = "candidate", "data"
AXES = (CANDIDATE, DATA)  # as one axis: what is spread over all devices


def parse_mesh(text: str) -> dict[str, int]:
    """`candidate=4,data=2` as sizes by axis; an axis that is left out is absent.

    Raises:
      UserError: it is written otherwise, names no such axis or one twice, or a size is no positive number.
    """
    sizes: dict[str, int] = {}
    for part in text.split(","):
        axis, _, size = (word.strip() for word in part.partition("="))
        if axis not in AXES:
            raise UserError(
                f"mesh '{text}' names the unknown axis '{axis}'{suggestion(axis, AXES)} (write it like "
                "candidate=4,data=2)"
            )
        if axis in sizes:
            raise UserError(f"mesh '{text}' names the axis '{axis}' twice")
        if not re.fullmatch("[0-9]+", size) or int(size) < 1:
            raise UserError(f"mesh '{text}': the size of '{axis}' must be a positive number, not '{size}'")
        sizes[axis] = int(size)
    return sizes


def mesh_sizes(text: str | None, population_size: int, num_devices: int) -> tuple[int, int]:
    """Devices along `candidate` and along `data`.

    Chosen automatically, candidates get as many devices as divide the population, and images the rest: both
    axes do the same work, but a population that does not divide leaves devices idle, and few images do.

    Raises:
      UserError: the sizes that `text` gives do not fit the devices.
    """
    sizes = {} if text is None else parse_mesh(text)
    if not sizes:
        sizes = {CANDIDATE: math.gcd(num_devices, population_size)}
    for axis, other in (AXES, AXES[::-1]):
        if axis in sizes and other not in sizes:
            if sizes[axis] < num_devices and num_devices % sizes[axis]:
                raise UserError(
                    f"mesh '{text}': {num_devices} devices do not divide by {sizes[axis]}; give {other} too"
                )
            sizes[other] = max(num_devices // sizes[axis], 1)
    if sizes[CANDIDATE] * sizes[DATA] > num_devices:
        raise UserError(
            f"mesh '{text}' needs {sizes[CANDIDATE] * sizes[DATA]} devices, and there are {num_devices}: "
            "lower a size"
        )
    return sizes[CANDIDATE], sizes[DATA]


def make_mesh(text: str | None = None, population_size: int = 1) -> Mesh | None:
    """The mesh of all devices, or of the first ones where `text` asks for fewer; None: one device.

    Args:
      text: sizes, as in `candidate=4,data=2`; an axis that is left out gets the other devices. None: chosen
        automatically.
      population_size: candidates that a search scores at once.

    Raises:
      UserError: the sizes are wrong, or leave a process of several without devices.
    """
    devices = jax.devices()
    sizes = mesh_sizes(text, population_size, len(devices))
    used = math.prod(sizes)
    if used < len(devices) and jax.process_count() > 1:
        raise UserError(
            f"mesh '{text}' uses {used} of {len(devices)} devices: with several processes it must use all"
        )
    # Explicit axes, the default, would ask for shardings in every operation.
    automatic = (AxisType.Auto,) * len(AXES)
    return None if used == 1 else jax.make_mesh(sizes, AXES, axis_types=automatic, devices=devices[:used])


def one_device() -> Mesh:
    """A mesh of this process's first device, for programs that want one whatever the devices are."""
    return Mesh(
        np.array(jax.local_devices()[:1]).reshape(1, 1), AXES, axis_types=(AxisType.Auto,) * len(AXES)
    )


def describe_mesh(mesh: Mesh | None) -> dict[str, int]:
    """Devices by axis, for records."""
    return dict.fromkeys(AXES, 1) if mesh is None else dict(mesh.shape)


def mesh_text(mesh: Mesh | None) -> str:
    """The same for people: as `--mesh` takes it."""
    return ",".join(f"{axis}={size}" for axis, size in describe_mesh(mesh).items())


def spread(mesh: Mesh | None, fn: Callable[..., Any], in_specs: Any, out_specs: Any) -> Callable[..., Any]:
    """`fn` on every device's share of its arguments; without a mesh `fn` itself."""
    if mesh is None:
        return fn
    # Loops carry activations that become different on each device: no check of what is replicated.
    return jax.shard_map(fn, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False)


def replicate(mesh: Mesh | None, tree: Any) -> Any:
    """The whole of a tree's arrays on every device; all processes must hold the same."""
    if mesh is None:
        return tree
    sharding = NamedSharding(mesh, PartitionSpec())
    if jax.process_count() == 1:
        return jax.device_put(tree, sharding)

    def one(leaf: Any) -> jax.Array:
        array = np.asarray(leaf)
        return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])

    return jax.tree.map(one, tree)


def gather(mesh: Mesh | None, tree: Any) -> Any:
    """The whole of arrays that lie on the mesh, however they do, on every device."""
    if mesh is None:
        return tree
    return jax.jit(lambda tree: tree, out_shardings=NamedSharding(mesh, PartitionSpec()))(tree)


def image_mesh(mesh: Mesh, num_images: int) -> Mesh:
    """The same devices with as many of them along the data axis as divide a number of images."""
    shards = math.gcd(mesh.size, num_images)
    return Mesh(mesh.devices.reshape(-1, shards), AXES, axis_types=(AxisType.Auto,) * len(AXES))


def num_shares(mesh: Mesh | None) -> int:
    """Into how many the images are divided."""
    return 1 if mesh is None else mesh.shape[DATA]


def fetch(mesh: Mesh | None, tree: Any) -> Any:
    """Replicated arrays on this process's first device alone; waits for them."""
    return tree if mesh is None else jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf)), tree)


def put_rows(
    mesh: Mesh, axes: str | Sequence[str], images: np.ndarray, rows: np.ndarray | None = None
) -> jax.Array:
    """The rows of `images` in this order, in equal shares along `axes`; a process reads only its own.

    `rows` None: all in their order; their number is a multiple of the devices along `axes`.
    """
    chosen = np.arange(len(images)) if rows is None else rows
    sharding = NamedSharding(mesh, PartitionSpec(axes if isinstance(axes, str) else tuple(axes)))
    shape = (len(chosen), *images.shape[1:])

    def own(index: tuple[slice, ...] | None) -> np.ndarray:
        return np.asarray(images[chosen if index is None else chosen[index[0]]])

    return jax.make_array_from_callback(shape, sharding, own)
