"""A float network as one object: its functions, its parameters, and how it wants its images."""

from collections.abc import Mapping
from dataclasses import asdict, fields
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from evolq_jax.devices.precision import Precision, matmul_precision
from evolq_jax.network.chunks import in_padded_chunks
from evolq_jax.network.parts import ModelParts
from evolq_jax.network.reading import float_reading
from evolq_jax.network.run import forward, normalize
from evolq_jax.network.sites import list_sites
from evolq_jax.typing import Array, Params, Preprocessing, SiteInfo

CHUNK = 50  # images that a call runs at once


@struct.dataclass
class Network:
    """A float network. It is a pytree whose leaves are the parameters, so it can enter `jit` and `vmap`.

    Attributes:
      parts: pure functions of the parameters (`evolq_jax.network.parts`).
      params: float32 parameters; blocks of a segment are stacked on a leading L axis.
      preprocessing: size, crop, mean and deviation of its images.
      name: of the registry, or any name for a network of your own.
      config: sizes of a registry's network; None for a network of your own.
      precision: of its matrix products, on every backend. (GPUs use TF32 by default.)
    """

    parts: ModelParts = struct.field(pytree_node=False)
    params: Params
    preprocessing: Preprocessing = struct.field(pytree_node=False)
    name: str = struct.field(pytree_node=False, default="network")
    config: Any = struct.field(pytree_node=False, default=None)
    precision: Precision = struct.field(pytree_node=False, default="float32")

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of one image."""
        size = self.preprocessing.size
        return size, size, len(self.preprocessing.mean)

    @property
    def architecture(self) -> dict[str, Any]:
        """Its sizes and options by name, as plain values. Empty for a network of your own."""
        found = {} if self.config is None else asdict(self.config)
        return {name: [*value] if isinstance(value, tuple) else value for name, value in found.items()}

    @property
    def outline(self) -> dict[str, Any]:
        """Of `architecture` the sizes, and the options that are not its family's usual ones."""
        usual = {} if self.config is None else {field.name: field.default for field in fields(self.config)}
        return {
            name: value
            for name, value in self.architecture.items()
            if not (isinstance(value, str | bool) and value == usual[name])
        }

    @property
    def described(self) -> str:
        """`outline` in words."""
        return in_words(self.outline)

    @property
    def num_classes(self) -> int:
        """C: the number of logits. Nothing is computed."""
        images = jax.ShapeDtypeStruct((1, *self.image_shape), jnp.float32)
        return jax.eval_shape(self.apply, self.params, images).shape[-1]

    @property
    def sites(self) -> dict[str, SiteInfo]:
        """Every quantization point by name, in the order of the forward pass. Nothing is computed."""
        return list_sites(self.parts, self.params, self.image_shape)

    def apply(self, params: Params, images: Array) -> Array:
        """Logits [B, C], as a pure function.

        Args:
          params: the parameters.
          images: uint8 pixels [B, height, width, channels], or floats that are normalised already.
        """
        with matmul_precision(self.precision):
            return forward(self.parts, float_reading(params), as_input(self.preprocessing, images))

    def __call__(self, images: Array) -> Array:
        """Logits [B, C] of images, which are as in `apply`. `CHUNK` images run at once."""
        return _logits(self, jnp.asarray(images))


def in_words(architecture: Mapping[str, Any]) -> str:
    """The sizes and options of a network in a row, without what it does not have."""
    found = {name.replace("_", " "): value for name, value in architecture.items() if value}
    return ", ".join(name if value is True else f"{name} {value}" for name, value in found.items())


def as_input(preprocessing: Preprocessing, images: Array) -> Array:
    """Images as the network reads them: uint8 pixels are normalised, floats stay as they are."""
    return normalize(preprocessing, images) if images.dtype == jnp.uint8 else images


@jax.jit
def _logits(network: Network, images: Array) -> Array:
    return in_padded_chunks(partial(network.apply, network.params), images, CHUNK)
