"""A network as it is read: its parameters, and what happens at its quantization points."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from evolq_jax.quant.qparams import QParams
from evolq_jax.quant.sites import SiteFactory, float_sites, quant_sites
from evolq_jax.quant.spec import Specs, scope
from evolq_jax.typing import Params, Site


class Reading(NamedTuple):
    """A network's parameters, and how its quantization points are read: in float, observed or quantized.

    It holds a function. So make it inside a compiled program; it cannot be an argument of one.

    Attributes:
      make_site: gives what the blocks of a segment (or what lies outside blocks) call at their points.
      params: the parameters. Where `make_site` quantizes, the weights are fake-quantized already.
      qparams: what `make_site` reads points with, by site. Usually these are the quantizers' numbers.
    """

    make_site: SiteFactory
    params: Params
    qparams: Mapping[str, Any]

    @property
    def outside(self) -> Site:
        """What is called at the points outside blocks."""
        return self.make_site("", self.qparams)

    def stacked(self, segment: str) -> tuple[Params, dict[str, Any]]:
        """A segment's parameters and numbers, with a leading L axis."""
        return self.params[segment], scope(self.qparams, segment)


def float_reading(params: Params) -> Reading:
    """The float network."""
    return Reading(float_sites, params, {})


def quantized_reading(specs: Specs, weights: Params, qparams: QParams) -> Reading:
    """The quantized network. `weights` are parameters that are fake-quantized already."""
    return Reading(quant_sites(specs), weights, qparams)
