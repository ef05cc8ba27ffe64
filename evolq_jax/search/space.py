"""What is searched: the scales of some of a block's sites, and how a solution stands for them."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import jax.numpy as jnp

from evolq_jax.errors import UserError
from evolq_jax.quant.spec import select
from evolq_jax.typing import Array, QParams, Scales

Parametrization = Literal["raw", "log", "log_per_tensor"]


@dataclass(frozen=True)
class SearchSpace:
    """The searched sites of one block (local names); zero points stay where calibration put them.

    Parametrizations: `raw`, the scales themselves; `log`, the logarithm of each scale's ratio to its
    start; `log_per_tensor`, one such ratio for each site. The logarithms are in units of `step`, so
    that a strategy whose steps are of size 1 moves scales by about `step` relative.
    """

    sites: tuple[str, ...]
    parametrization: Parametrization = "raw"

    def encode(self, block_scales: Scales) -> dict[str, Array]:
        """The solution that stands for the start."""
        scales = {site: block_scales[site].scale for site in self.sites}
        if self.parametrization == "raw":
            return scales
        if self.parametrization == "log":
            return {site: jnp.zeros_like(scale) for site, scale in scales.items()}
        return {site: jnp.zeros((1,) * scale.ndim) for site, scale in scales.items()}

    def decode(self, solution: dict[str, Array], start: Scales, step: Array | float) -> Scales:
        """The block's scales with those of a solution put in; `start` is what `encode` was given."""
        changed = {}
        for site, value in solution.items():
            scale = value if self.parametrization == "raw" else start[site].scale * jnp.exp(step * value)
            changed[site] = QParams(scale, start[site].zero_point)
        return start | changed


def make_space(
    patterns: Iterable[str], sites: Iterable[str], parametrization: Parametrization, segment: str
) -> SearchSpace:
    """The space of the sites (with scales) of one segment that match `patterns`.

    Raises:
      UserError: no site of the segment matches, or a pattern matches no site at all.
    """
    prefix = segment + "/"
    chosen = select(patterns, sites)
    local = tuple(site.removeprefix(prefix) for site in chosen if site.startswith(prefix))
    if not local:
        raise UserError(f"search sites {', '.join(patterns)} are all outside the blocks of '{segment}'")
    return SearchSpace(local, parametrization)
