"""A quantized network: parameters, the numbers of its quantizers, and the float network that it imitates."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
from flax import struct

from evolq_jax.devices.precision import matmul_precision
from evolq_jax.errors import UserError, suggestion
from evolq_jax.network.chunks import in_padded_chunks
from evolq_jax.network.network import CHUNK, Network, as_input
from evolq_jax.network.reading import quantized_reading
from evolq_jax.network.run import forward
from evolq_jax.quant.gradients import elements_sharing, lsq_scaled
from evolq_jax.quant.qparams import QParams, SiteQParams
from evolq_jax.quant.sites import fake_quant_weights
from evolq_jax.quant.spec import Specs
from evolq_jax.typing import Array, Params

Scales = Mapping[str, Array | SiteQParams]  # by site name: a scale alone, or all of a quantizer's numbers


@struct.dataclass
class QuantizedNetwork:
    """A quantized network. Calibration gives it and search improves it.

    It is a pytree: `jit`, `grad` and `vmap` take it as it is.

    Attributes:
      network: the float network that it imitates.
      params: the parameters that are quantized: the float ones, or those that calibration changed.
      qparams: scale, zero point and bits of every quantizer, by site name.
      specs: how each site is quantized (static).
    """

    network: Network
    params: Params
    qparams: QParams
    specs: Specs = struct.field(pytree_node=False)

    @property
    def scales(self) -> dict[str, Array]:
        """The scales that a search or a gradient can move, by site name, [1, ..., 1 or K] each.

        Sites of blocks have a leading L axis.
        """
        return {name: self.qparams[name].scale for name, spec in self.specs if spec.has_scale}

    def apply(self, params: Params, scales: Scales, images: Array) -> Array:
        """Logits [B, C], as a pure function. Rounding passes gradients straight through (LSQ, 1902.08153).

        Args:
          params: the parameters to quantize, usually `self.params`.
          scales: for some sites, the scale to use, or a whole `SiteQParams`. Other sites keep their own.
          images: uint8 pixels [B, height, width, channels], or floats that are normalised already.

        Raises:
          UserError: `scales` names a site that is not quantized.
        """
        network, specs = self.network, self.specs
        qparams = lsq_scaled(specs, elements_sharing(specs, network.sites), self._merged(scales))
        with matmul_precision(network.precision):
            quantized = fake_quant_weights(specs, params, qparams)
            x = as_input(network.preprocessing, images)
            return forward(network.parts, quantized_reading(specs, quantized, qparams), x)

    def __call__(self, images: Array) -> Array:
        """Logits [B, C] of images, which are as in `apply`. `network.CHUNK` images run at once."""
        return _logits(self, jnp.asarray(images))

    def with_scales(self, scales: Scales) -> "QuantizedNetwork":
        """The same network with other scales, which are as in `apply`.

        Raises:
          UserError: `scales` names a site that is not quantized.
        """
        return replace(self, qparams=self._merged(scales))

    def save(self, path: str | Path) -> None:
        """Writes the network into a new folder. `evolq_jax.load` reads it.

        Raises:
          UserError: there is something at that path already, or it cannot be written.
        """
        from evolq_jax.quantized.files import save

        save(self, path)

    def _merged(self, scales: Scales) -> QParams:
        merged = dict(self.qparams)
        for site, value in scales.items():
            if site not in merged:
                raise UserError(f"no quantized site is called '{site}'{suggestion(site, merged)}")
            merged[site] = value if isinstance(value, SiteQParams) else merged[site]._replace(scale=value)
        return merged


@jax.jit
def _logits(quantized: QuantizedNetwork, images: Array) -> Array:
    run = partial(quantized.apply, quantized.params, {})
    return in_padded_chunks(run, images, CHUNK)
