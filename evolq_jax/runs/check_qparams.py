"""Checks of the scales that a run's file holds: somebody may have edited them, or the config beside them."""

from collections.abc import Mapping

import numpy as np

from evolq_jax.quant.qparams import ALLOWED_BITS, QParams, SiteQParams
from evolq_jax.quant.spec import Specs


def wrong_qparams(arrays: Mapping[str, np.ndarray], specs: Specs, blank: QParams) -> str | None:
    """What is wrong with the arrays of a file of quantizers' numbers; None: nothing.

    Args:
      arrays: `SITE.scale`, `SITE.zero_point` and `SITE.bits`, by key.
      specs: the network's quantizers.
      blank: numbers of the right shapes.
    """
    known = [f"{site}.{field}" for site in blank for field in SiteQParams._fields]
    extra = sorted(set(arrays) - set(known))
    missing = sorted({f"{site}.scale" for site, spec in specs if spec.has_scale} - set(arrays))
    if extra or missing:
        return f"{(missing or extra)[0]} is {'missing' if missing else 'there, and no site has it'}"
    for key, array in arrays.items():
        site, _, field = key.rpartition(".")
        expected = getattr(blank[site], field)
        if array.dtype != np.float32:
            return f"{key} holds {array.dtype}, not float32"
        if not _fits(array.shape, expected.shape):
            return f"{key} has the shape {array.shape}, not {expected.shape}"
        if not np.isfinite(array).all():
            return f"{key} holds NaN or infinity"
        if field == "scale" and not (array > 0).all():
            return f"{key} holds {array.min():g}, and scales are positive"
        if field == "bits" and not np.isin(array, ALLOWED_BITS).all():
            return f"{key} holds {array.min():g}, and bits are whole numbers from 2 to 8"
    return None


def other_bits(found: QParams, blank: QParams) -> str | None:
    """The first site whose bits are not those of the config, which `blank` has; None: none."""
    for site, wanted in blank.items():
        bits = np.asarray(found[site].bits)
        if not np.array_equal(bits, np.broadcast_to(wanted.bits, bits.shape)):
            return (
                f"{site} has {float(bits.max()):g} bits, and the config says {float(np.max(wanted.bits)):g}"
            )
    return None


def _fits(shape: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    """Whether a shape is the wanted one, or has ones in its place: channels may share a number."""
    pairs = zip(shape, wanted, strict=False)
    return len(shape) == len(wanted) and all(size in (1, full) for size, full in pairs)
