"""What is searched: scales and zero points of some of a block's sites, and how a solution stands for them."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp

from evolq_jax.errors import UserError
from evolq_jax.network.parts import ModelParts
from evolq_jax.network.sites import is_stacked
from evolq_jax.quant.qparams import QParams
from evolq_jax.quant.quantizers.uniform import int_range
from evolq_jax.quant.spec import QuantSpec, Specs, scope, select
from evolq_jax.typing import Array

Parametrization = Literal["raw", "log", "log_per_tensor", "log_per_group"]
SHIFT = "#zero_point"  # a solution holds a site's shift under the site's name and this


@dataclass(frozen=True)
class SearchSpace:
    """The searched sites of one block (local names).

    Parametrizations: `raw`, the scales themselves; `log`, the logarithm of each scale's ratio to its
    start; `log_per_tensor`, one such ratio for each site; `log_per_group`, one for each `group_size`
    consecutive channels (the last group may be smaller). The logarithms are in units of `step`, so that a
    strategy whose steps are of size 1 moves scales by about `step` relative.

    A `tied` site has scales whose ratios mean something (power-of-two factors of ptf and pow2): it has one
    coordinate in every parametrization, and its channels follow.

    Zero points move where `affine` has a site: as integers, by one coordinate for each of the scales'
    coordinates, in units of `step` times the integer range, so that a step shifts the clipping window by
    about as much as it would widen it. They stay inside the integer range, so that zero remains a value.
    Others stay where calibration put them.
    """

    sites: tuple[str, ...]
    parametrization: Parametrization = "raw"
    group_size: int = 64
    tied: tuple[str, ...] = ()
    affine: tuple[str, ...] = ()

    def encode(self, block_qparams: QParams) -> dict[str, Array]:
        """The solution that stands for the start."""
        solution = {site: self._start(site, block_qparams[site].scale) for site in self.sites}
        for site in self.affine:
            solution[site + SHIFT] = jnp.zeros_like(solution[site])
        return solution

    def encode_blocks(self, qparams: QParams) -> dict[str, Array]:
        """`encode` of neighbouring blocks: a leading axis on every leaf."""
        return jax.vmap(self.encode)(qparams)

    def decode(self, solution: dict[str, Array], start: QParams, step: Array | float) -> QParams:
        """The block's scales with those of a solution put in; `start` is what `encode` was given."""
        changed = {}
        for site in self.sites:
            scale, value = start[site].scale, solution[site]
            if self.parametrization != "raw":
                scale *= jnp.exp(step * self._expand(value, scale))
            elif site in self.tied:
                scale *= value / scale.min(keepdims=True)
            else:
                scale = value
            changed[site] = start[site]._replace(scale=scale)
        for site in self.affine:
            site_qparams = start[site]
            qmin, qmax = int_range(False, site_qparams.bits)
            shift = step * (qmax - qmin) * self._expand(solution[site + SHIFT], site_qparams.scale)
            moved = jnp.clip(jnp.round(site_qparams.zero_point + shift), qmin, qmax)
            changed[site] = changed[site]._replace(zero_point=moved)
        return start | changed

    def decode_blocks(self, solution: dict[str, Array], start: QParams, step: Array | float) -> QParams:
        """`decode` of neighbouring blocks: a leading axis on every leaf."""
        return jax.vmap(lambda solution, start: self.decode(solution, start, step))(solution, start)

    def num_coordinates(self, site: str, channels: int) -> int:
        """Numbers that a solution has for a site with so many scales."""
        if self.parametrization == "log_per_tensor" or site in self.tied:
            channels = 1
        elif self.parametrization == "log_per_group":
            channels = math.ceil(channels / self.group_size)
        return channels * (2 if site in self.affine else 1)

    def _start(self, site: str, scale: Array) -> Array:
        if self.parametrization == "raw":
            return scale.min(keepdims=True) if site in self.tied else scale
        if self.parametrization == "log_per_tensor" or site in self.tied:
            return jnp.zeros((1,) * scale.ndim)
        if self.parametrization == "log_per_group":
            return jnp.zeros((*scale.shape[:-1], math.ceil(scale.shape[-1] / self.group_size)))
        return jnp.zeros_like(scale)

    def _expand(self, value: Array, scale: Array) -> Array:
        """From coordinates to channels; a single one broadcasts."""
        if self.parametrization != "log_per_group" or value.shape[-1] == 1:
            return value
        return jnp.repeat(value, self.group_size, axis=-1)[..., : scale.shape[-1]]


def searched_sites(parts: ModelParts, specs: Specs, patterns: Sequence[str]) -> tuple[str, ...]:
    """The sites inside blocks that have scales and match any of the patterns.

    Raises:
      UserError: a pattern matches no site that has scales, or all lie outside the blocks.
    """
    chosen = select(patterns, [name for name, spec in specs if spec.has_scale])
    inside = tuple(name for name in chosen if is_stacked(parts, name))
    if not inside:
        raise UserError(
            f"search.sites ({', '.join(patterns) or 'empty'}) name no site of the network's blocks"
        )
    return inside


def make_space(
    patterns: Iterable[str],
    sites: Iterable[str],
    parametrization: Parametrization,
    segment: str,
    *,
    specs: Specs = (),
    group_size: int = 64,
    zero_points: bool = False,
) -> SearchSpace:
    """The space of the sites (with scales) of one segment that match `patterns`.

    Args:
      patterns: shell style.
      sites: all sites that have scales.
      parametrization: see `SearchSpace`.
      segment: whose sites are searched.
      specs: the network's quantizers; without them no site is tied.
      group_size: channels of one coordinate in `log_per_group`.
      zero_points: move zero points too, of the sites whose quantizer is affine.

    Raises:
      UserError: no site of the segment matches, a pattern matches no site at all, or zero points are to move
        but no matching site has one.
    """
    prefix = segment + "/"
    patterns = tuple(patterns)
    chosen = select(patterns, sites)
    local = tuple(site.removeprefix(prefix) for site in chosen if site.startswith(prefix))
    if not local:
        raise UserError(f"search sites {', '.join(patterns)} are all outside the blocks of '{segment}'")
    known: dict[str, QuantSpec] = scope(specs, segment)
    tied = tuple(s for s in local if s in known and _is_tied(s, known[s]))
    affine = tuple(s for s in local if s in known and _is_affine(known[s])) if zero_points else ()
    if zero_points and not affine:
        raise UserError(
            f"search.zero_points has nothing to move in '{segment}': no searched site has an affine "
            "quantizer (quant.signed_weights and logarithmic quantizers have no zero points)"
        )
    return SearchSpace(local, parametrization, group_size, tied, affine)


def _is_tied(site: str, spec: QuantSpec) -> bool:
    """Weights have no factors: an observer of that name gives them a free scale for each channel."""
    return spec.per_channel and spec.observer.by_channel and not site.endswith("weight")


def _is_affine(spec: QuantSpec) -> bool:
    return spec.quantizer.equal_steps and not spec.signed
