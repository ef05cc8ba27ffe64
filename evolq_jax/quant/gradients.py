"""Made-up gradients beside exact values: of integer operations, and LSQ's factor on those of scales."""

from collections.abc import Callable, Mapping
from math import prod

import jax
import jax.numpy as jnp

from evolq_jax.quant.qparams import QParams
from evolq_jax.quant.spec import Specs
from evolq_jax.typing import Array, SiteInfo

Sharing = tuple[tuple[str, int], ...]  # by site: the elements that share a scale, of one image; hashable


@jax.custom_vjp
def _with_gradient_of(smooth: Array, exact: Array) -> Array:
    del smooth
    return exact


_with_gradient_of.defvjp(
    lambda smooth, exact: (exact, None), lambda _, cotangent: (cotangent, jnp.zeros_like(cotangent))
)
with_gradient_of: Callable[[Array, Array], Array] = _with_gradient_of  # type: ignore[assignment]
"""`exact`, with the gradient of `smooth`, of the same shape; nothing of `smooth` is computed without it."""


@jax.custom_vjp
def _scale_gradient(x: Array, factor: Array) -> Array:
    del factor
    return x


_scale_gradient.defvjp(
    lambda x, factor: (x, factor), lambda factor, cotangent: (factor * cotangent, jnp.zeros_like(factor))
)
scale_gradient: Callable[[Array, Array], Array] = _scale_gradient  # type: ignore[assignment]
"""`x`, whose gradient is multiplied by `factor` (of its shape, or of size 1), which gets none."""


def elements_sharing(specs: Specs, sites: Mapping[str, SiteInfo]) -> Sharing:
    """How many elements share a scale at each site; activations' are counted for one image."""

    def count(info: SiteInfo, per_channel: bool) -> int:
        # The leading axis is the images', but of a table that all images share.
        shape = info.shape if info.is_weight else info.shape[1:]
        return max(1, prod(shape) // (info.shape[-1] if per_channel else 1))

    return tuple((name, count(sites[name], spec.per_channel)) for name, spec in specs)


def lsq_scaled(specs: Specs, sharing: Sharing, qparams: QParams) -> QParams:
    """The same numbers, whose scales' gradients have LSQ's factor (Esser et al. 2020, section 2.2).

    It is 1 / sqrt(elements that share the scale * highest code).

    Args:
      specs: the network's quantizers.
      sharing: of the sites whose gradients have the factor (`elements_sharing`).
      qparams: by site; sites that `sharing` lacks stay as they are.
    """
    scaled, table = dict(qparams), dict(specs)
    for site, elements in sharing:
        spec, site_qparams = table[site], qparams[site]
        factor = 1.0 / jnp.sqrt(elements * spec.quantizer.code_range(spec, site_qparams.bits)[1])
        scaled[site] = site_qparams._replace(scale=scale_gradient(site_qparams.scale, factor))
    return scaled
