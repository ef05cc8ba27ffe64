"""How images lie over the devices of a mesh."""

import math
from dataclasses import dataclass

import jax
import numpy as np
from jax.sharding import Mesh

from evolq_jax.devices.mesh import DATA, put_rows


def even_chunk(count: int, at_most: int) -> int:
    """The size of as few chunks as possible that hold `count`, all of one size."""
    return math.ceil(count / math.ceil(count / at_most))


@dataclass(frozen=True)
class Placement:
    """How images, in parts one after the other, lie over the devices of the data axis.

    Each part is dealt out in turn: image i of a part is the (i // devices)-th of device i % devices, so the
    first images of a part are the first of every device. Shares are filled up with the part's last image to a
    multiple of `unit`, so that they divide into chunks of about the size asked for.

    Attributes:
      mesh: the devices.
      counts: images of each part.
      chunk: images that run at once on a device.
    """

    mesh: Mesh
    counts: tuple[int, ...]
    chunk: int

    @property
    def devices(self) -> int:
        """Along the data axis."""
        return self.mesh.shape[DATA]

    @property
    def unit(self) -> int:
        """At most `chunk`: the largest part's share divided into as few chunks as possible."""
        return even_chunk(math.ceil(max(self.counts) / self.devices), self.chunk)

    def share(self, num_images: int) -> int:
        """What every device runs for the first so many images of a part, the filling included."""
        return math.ceil(math.ceil(num_images / self.devices) / self.unit) * self.unit

    @property
    def shares(self) -> tuple[int, ...]:
        """Of each part."""
        return tuple(map(self.share, self.counts))

    def rows(self) -> np.ndarray:
        """The images in the order in which they lie: device by device, part by part."""
        found: list[np.ndarray] = []
        for device in range(self.devices):
            first = 0
            for count, share in zip(self.counts, self.shares, strict=True):
                dealt = np.arange(share) * self.devices + device
                found.append(first + np.minimum(dealt, count - 1))
                first += count
        return np.concatenate(found)

    def put(self, images: np.ndarray) -> jax.Array:
        """All parts' images [B, ...] over the devices: [devices * sum(shares), ...]."""
        return put_rows(self.mesh, DATA, images, self.rows())

    def in_order(self, x: jax.Array, num_images: int) -> jax.Array:
        """Inside `spread`: every device's [P, share, ...] gathered to [P, num_images, ...] of the part."""
        if self.devices == 1:
            return x[:, :num_images]
        gathered = jax.lax.all_gather(x, DATA, axis=2)  # [P, share, devices, ...]
        return gathered.reshape(x.shape[0], -1, *x.shape[2:])[:, :num_images]
