"""The numbers of quantizers, by site."""

from typing import NamedTuple

from evolq_jax.typing import Array


class SiteQParams(NamedTuple):
    """One quantizer's searched numbers, each of the same rank as the tensor it quantizes.

    Stacked sites (those of a segment's blocks) carry a leading L axis.
    """

    scale: Array  # float32, positive
    zero_point: Array  # float32 holding integers; other quantizers than the uniform keep another one here


QParams = dict[str, SiteQParams]  # by site name: a flat tree beside `Params`
