"""The numbers of quantizers, by site."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from evolq_jax.errors import UserError, suggestion
from evolq_jax.typing import Array, SiteInfo

if TYPE_CHECKING:
    from evolq_jax.quant.spec import Specs


class SiteQParams(NamedTuple):
    """One quantizer's numbers, each of the same rank as the tensor it quantizes.

    Stacked sites (those of a segment's blocks) carry a leading L axis. `bits` is of size 1 on every other
    axis: blocks of one segment may differ, channels of one tensor may not.
    """

    scale: Array  # float32, positive; 1 where the quantizer has none
    zero_point: Array  # float32 holding integers; other quantizers than the uniform keep another one here
    bits: Array  # float32 holding an integer from 2 to 8


ALLOWED_BITS = range(2, 9)

QParams = dict[str, SiteQParams]  # by site name: a flat tree beside `Params`


def check_bits(key: str, bits: float) -> None:
    """Refuses bits that no quantizer has.

    Raises:
      UserError: they are no whole number from 2 to 8; the message names `key`.
    """
    if bits not in ALLOWED_BITS:
        raise UserError(f"{key} must be from 2 to 8, not {bits:g}")


def blank_qparams(specs: Specs, bits: Mapping[str, int] | int, sites: Mapping[str, SiteInfo]) -> QParams:
    """What a calibration starts from: scales 1, zero points 0, and every quantized site's bits.

    Args:
      specs: the network's quantizers.
      bits: by site (see `resolve`), or one number for all; `with_bits` gives blocks numbers of their own.
      sites: the network's quantization points (see `evolq_jax.network.sites.list_sites`).
    """
    blank: dict[str, tuple[np.ndarray, ...]] = {}
    for site, spec in specs:
        info = sites[site]
        lead = () if info.depth is None else (info.depth,)
        ones = (1,) * (len(info.shape) - 1)
        shape = (*lead, *ones, info.shape[-1] if spec.per_channel else 1)
        width = bits if isinstance(bits, int) else bits[site]
        scale, zero_point = np.ones(shape, np.float32), np.zeros(shape, np.float32)
        blank[site] = scale, zero_point, np.full((*lead, *ones, 1), width, np.float32)
    # Made by numpy and moved at once: JAX would compile a program for each shape.
    moved = jax.device_put(blank)
    return {site: SiteQParams(scale, zero_point, width) for site, (scale, zero_point, width) in moved.items()}


def with_bits(qparams: QParams, bits: Mapping[str, int | Array | np.ndarray]) -> QParams:
    """The same numbers with other bits at some sites.

    Scales and zero points stay: find them anew (the link `ranges` takes the bits that it is given).

    Args:
      qparams: of a network.
      bits: by site, one for all blocks or one for each [L]; may be traced.

    Raises:
      UserError: there is no such site, or bits that are no tracers are outside 2 to 8.
    """
    changed = dict(qparams)
    for site, width in bits.items():
        if site not in qparams:
            raise UserError(f"no quantized site is called '{site}'{suggestion(site, qparams)}")
        if not isinstance(width, Tracer):
            for value in np.ravel(width):
                check_bits(f"the bits of '{site}'", float(value))
        old = qparams[site].bits
        by_block = jnp.asarray(width, old.dtype).reshape(-1, *[1] * (old.ndim - 1))
        changed[site] = qparams[site]._replace(bits=jnp.broadcast_to(by_block, old.shape))
    return changed
