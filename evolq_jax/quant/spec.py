"""What of a site's quantizer is static (`QuantSpec`), and the tables of these (`Specs`)."""

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

from evolq_jax.errors import UserError, suggestion
from evolq_jax.quant.observers.base import Observer
from evolq_jax.quant.observers.minmax import MINMAX
from evolq_jax.quant.quantizers.base import Quantizer
from evolq_jax.quant.quantizers.uniform import UNIFORM


@dataclass(frozen=True)
class QuantSpec:
    """How one site is quantized. Hashable: it is a static argument of compiled programs.

    How many bits is not said here but among the site's numbers (`SiteQParams.bits`): one program serves every
    mix of bits.

    Attributes:
      signed: `int` b (symmetric, zero point 0) instead of `uint` b (affine).
      per_channel: one scale per index of the last axis (weights: per output channel).
      quantizer: how values become integer codes (`evolq_jax.quant.quantizers`).
      observer: how calibration turns data into the site's numbers (`evolq_jax.quant.observers`).
      integer_op: run the LayerNorm or softmax before the site in FQ-ViT's integer arithmetic.
      bias_correction: weights only: the released code's shift and stretch to the float channel's
        mean and standard deviation.
      codes: weights only: the parameters hold the integers themselves, so that their rounding is decided:
        a scale that moves takes the grid along and changes no integer.
    """

    signed: bool = False
    per_channel: bool = False
    quantizer: Quantizer = UNIFORM
    observer: Observer = MINMAX
    integer_op: bool = False
    bias_correction: bool = False
    codes: bool = False

    @property
    def has_scale(self) -> bool:
        """Whether calibration finds a scale, which a search may move; some quantizers have none."""
        return self.quantizer.has_scale


Specs = tuple[tuple[str, QuantSpec], ...]  # resolved: (site name, spec) in order; hashable


def with_codes(specs: Specs, weights: Container[str]) -> Specs:
    """The specs with `codes` set for these sites, and for no other."""
    return tuple((name, replace(spec, codes=name in weights)) for name, spec in specs)


def select(patterns: Iterable[str], sites: Iterable[str]) -> tuple[str, ...]:
    """The sites that match any of the patterns, in the sites' order.

    Raises:
      UserError: a pattern matches nothing (a typo would otherwise silently search or quantize nothing).
    """
    sites, patterns = list(sites), list(patterns)
    for pattern in patterns:
        if not any(fnmatchcase(site, pattern) for site in sites):
            hint = suggestion(pattern, sites) or f"; the sites are: {', '.join(sites)}"
            raise UserError(f"site pattern '{pattern}' matches no quantization site of this model{hint}")
    return tuple(site for site in sites if any(fnmatchcase(site, pattern) for pattern in patterns))


def scope(entries: Mapping[str, Any] | Specs, segment: str) -> dict[str, Any]:
    """The entries of one segment, with its prefix taken off; those outside every segment for ``''``."""
    items = dict(entries)
    if segment:
        prefix = segment + "/"
        return {name.removeprefix(prefix): v for name, v in items.items() if name.startswith(prefix)}
    return items
