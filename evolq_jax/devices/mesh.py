"""The devices of a run as one mesh: a population's candidates along one axis, images along the other.

Several devices run the programs of one device, each on its own share (`jax.shard_map`). A gather stands
wherever all shares are needed. A mesh of None means one device.
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
    """Reads `candidate=4,data=2` as sizes by axis. An axis that the text leaves out is absent.

    Raises:
      UserError: the text has another form, an unknown axis, the same axis twice, or a size below one.
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
    """The number of devices along `candidate` and along `data`.

    Without `text`, `candidate` gets the greatest common divisor of devices and population, and `data` the
    rest. Both axes do the same work, but a population that does not divide leaves devices idle.

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
    """The mesh of all devices, or of the first ones if `text` asks for fewer. None means one device.

    Args:
      text: sizes, as in `candidate=4,data=2`. An axis that is left out gets the other devices. None: the
        sizes are chosen automatically.
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
    """A mesh of this process's first device alone, for programs that need a mesh in any case."""
    return Mesh(
        np.array(jax.local_devices()[:1]).reshape(1, 1), AXES, axis_types=(AxisType.Auto,) * len(AXES)
    )


def describe_mesh(mesh: Mesh | None) -> dict[str, int]:
    """The number of devices by axis, for records."""
    return dict.fromkeys(AXES, 1) if mesh is None else dict(mesh.shape)


def mesh_text(mesh: Mesh | None) -> str:
    """The mesh as text, in the form that `--mesh` takes."""
    return ",".join(f"{axis}={size}" for axis, size in describe_mesh(mesh).items())


def spread(mesh: Mesh | None, fn: Callable[..., Any], in_specs: Any, out_specs: Any) -> Callable[..., Any]:
    """`fn`, run by every device on its share of the arguments. Without a mesh: `fn` itself."""
    if mesh is None:
        return fn
    # Loops carry activations that become different on each device: no check of what is replicated.
    return jax.shard_map(fn, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False)


def replicate(mesh: Mesh | None, tree: Any) -> Any:
    """Copies a tree's arrays to every device. All processes must hold the same arrays."""
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
    """Gathers arrays that are spread over the mesh: every device gets all of them."""
    if mesh is None:
        return tree
    return jax.jit(lambda tree: tree, out_shardings=NamedSharding(mesh, PartitionSpec()))(tree)


def image_mesh(mesh: Mesh, num_images: int) -> Mesh:
    """The same devices, with as many along the data axis as divide `num_images`."""
    shards = math.gcd(mesh.size, num_images)
    return Mesh(mesh.devices.reshape(-1, shards), AXES, axis_types=(AxisType.Auto,) * len(AXES))


def num_shares(mesh: Mesh | None) -> int:
    """The number of shares into which images are divided."""
    return 1 if mesh is None else mesh.shape[DATA]


def fetch(mesh: Mesh | None, tree: Any) -> Any:
    """Brings replicated arrays to this process's first device, and waits for them."""
    return tree if mesh is None else jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf)), tree)


def put_rows(
    mesh: Mesh, axes: str | Sequence[str], images: np.ndarray, rows: np.ndarray | None = None
) -> jax.Array:
    """Puts rows of `images` on the devices, in equal shares along `axes`. A process reads only its own rows.

    `rows` gives the order; None means all rows as they are. The number of rows must be a multiple of the
    number of devices along `axes`.
    """
    chosen = np.arange(len(images)) if rows is None else rows
    sharding = NamedSharding(mesh, PartitionSpec(axes if isinstance(axes, str) else tuple(axes)))
    shape = (len(chosen), *images.shape[1:])

    def own(index: tuple[slice, ...] | None) -> np.ndarray:
        return np.asarray(images[chosen if index is None else chosen[index[0]]])

    return jax.make_array_from_callback(shape, sharding, own)
