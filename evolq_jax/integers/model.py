"""A quantized network as integers: what every exported file holds, and how it computes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from evolq_jax.devices.precision import Precision, matmul_precision
from evolq_jax.integers.marks import marked_parts, marked_reading
from evolq_jax.network.chunks import in_padded_chunks
from evolq_jax.network.network import CHUNK, as_input
from evolq_jax.network.parts import ModelParts
from evolq_jax.network.run import forward
from evolq_jax.network.sites import list_sites
from evolq_jax.quant.qparams import QParams
from evolq_jax.quant.spec import Specs
from evolq_jax.trees import flatten
from evolq_jax.typing import Array, Params, Preprocessing, SiteInfo


@dataclass(frozen=True, eq=False)  # compared by identity, since it is a static part of compiled programs
class About:
    """What is known of an integer model beside its numbers.

    Attributes:
      class_names: of all classes, by index; None: not known.
      metrics: scores by what was scored (`float`, `run`, `integers`), each by name. None: not known.
      num_images: that were scored; 0: none were.
      provenance: what it was made from: fingerprints, versions, the run's settings.
      allowed_floats: quantized sites that the file's runtime computes in float, as was asked for.
    """

    class_names: tuple[str, ...] | None = None
    metrics: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
    num_images: int = 0
    provenance: Mapping[str, Any] = field(default_factory=dict)
    allowed_floats: tuple[str, ...] = ()


NOTHING = About()


@dataclass(frozen=True)
class WeightCodes:
    """One weight as integers. Its value is `(codes - zero_point) * scale`.

    Attributes:
      codes: int8 (signed) or uint8 [..., in, K]; weights of blocks have a leading L axis.
      bits: of each block [L], or of the weight [1].
      signed: whether codes are symmetric about zero.
      scale: float32 [..., 1, K].
      zero_point: of the type of the codes, of the scale's shape.
    """

    codes: np.ndarray
    bits: np.ndarray
    signed: bool
    scale: np.ndarray
    zero_point: np.ndarray


@dataclass(frozen=True)
class ActivationQuantizer:
    """How one activation becomes integers.

    Attributes:
      kind: the quantizer's name.
      bits: of each block [L], or of the site [1].
      signed: whether codes are symmetric about zero.
      scale: float32 [..., 1 or K]; what it means is the quantizer's matter.
      zero_point: as the scale.
      integer_op: whether the LayerNorm or softmax before it runs in integers.
    """

    kind: str
    bits: np.ndarray
    signed: bool
    scale: np.ndarray
    zero_point: np.ndarray
    integer_op: bool


@struct.dataclass
class IntegerModel:
    """A quantized network as integers. It is a pytree, and a function from images to logits.

    Weights are decoded from their codes. Activations are rounded as runtimes do (`rounding.RuntimeUniform`).
    So its logits are what files are held against. They differ a little from those of the `QuantizedNetwork`
    that it was made from.

    Attributes:
      parts: the network's functions.
      params: codes (int8 or uint8) of the quantized weights, and float32 for all others. Blocks of a segment
        are stacked on a leading L axis.
      qparams: scale, zero point and bits of every quantizer, by site name.
      specs: how each site is quantized.
      preprocessing: how images are prepared.
      name: of the registry, or any name for a network of your own.
      config: sizes of a registry's network; None for a network of your own.
      precision: of products that stay in float.
      about: class names, scores, provenance.
    """

    parts: ModelParts = struct.field(pytree_node=False)
    params: Params
    qparams: QParams
    specs: Specs = struct.field(pytree_node=False)
    preprocessing: Preprocessing = struct.field(pytree_node=False)
    name: str = struct.field(pytree_node=False, default="network")
    config: Any = struct.field(pytree_node=False, default=None)
    precision: Precision = struct.field(pytree_node=False, default="float32")
    about: About = struct.field(pytree_node=False, default=NOTHING)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of one image."""
        size = self.preprocessing.size
        return size, size, len(self.preprocessing.mean)

    @property
    def sites(self) -> dict[str, SiteInfo]:
        """Every quantization point by name, in the order of the forward pass. Nothing is computed."""
        # Products of codes would not even have a type.
        values = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, jnp.float32), self.params)
        return list_sites(self.parts, values, self.image_shape)

    @property
    def weights(self) -> dict[str, WeightCodes]:
        """The quantized weights, by site name."""
        leaves, found = flatten(self.params), {}
        for name, spec in self.specs:
            if spec.codes:
                scale, zero_point, bits = map(np.asarray, self.qparams[name])
                codes = np.asarray(leaves[name])
                zeros = zero_point.astype(codes.dtype)
                found[name] = WeightCodes(codes, bits.ravel().astype(int), spec.signed, scale, zeros)
        return found

    @property
    def activations(self) -> dict[str, ActivationQuantizer]:
        """The quantized activations, by site name."""
        found = {}
        for name, spec in self.specs:
            if not spec.codes:
                scale, zero_point, bits = map(np.asarray, self.qparams[name])
                found[name] = ActivationQuantizer(
                    spec.quantizer.name,
                    bits.ravel().astype(int),
                    spec.signed,
                    scale,
                    zero_point,
                    spec.integer_op,
                )
        return found

    @property
    def float_params(self) -> dict[str, np.ndarray]:
        """The parameters that stay float32, by their paths."""
        coded = {name for name, spec in self.specs if spec.codes}
        return {k: np.asarray(leaf) for k, leaf in flatten(self.params).items() if k not in coded}

    @property
    def float_sites(self) -> list[str]:
        """The activations that stay float, in the order of the forward pass."""
        quantized = dict(self.specs)
        return [name for name, info in self.sites.items() if not info.is_weight and name not in quantized]

    def apply(self, params: Params, qparams: QParams, images: Array) -> Array:
        """Logits [B, C], as a pure function. Codes of a block are decoded when it runs.

        Args:
          params: as `self.params`.
          qparams: as `self.qparams`.
          images: uint8 pixels [B, height, width, channels], or floats that are normalised already.
        """
        with matmul_precision(self.precision):
            reading = marked_reading(self.parts, self.specs, params, qparams)
            parts = marked_parts(self.parts, self.specs)
            return forward(parts, reading, as_input(self.preprocessing, images))

    def __call__(self, images: Array | np.ndarray) -> Array:
        """Logits [B, C] of images, which are as in `apply`. `network.CHUNK` images run at once."""
        return _logits(self, jnp.asarray(images))


@jax.jit
def _logits(model: IntegerModel, images: Array) -> Array:
    return in_padded_chunks(partial(model.apply, model.params, model.qparams), images, CHUNK)
