"""What of a segment is searched, and by which strategy."""

from typing import NamedTuple

import numpy as np

from evolq_jax.network.parts import ModelParts
from evolq_jax.network.sites import is_stacked
from evolq_jax.quant.qparams import QParams
from evolq_jax.quant.spec import Specs, scope, select
from evolq_jax.search import programs
from evolq_jax.search.config import SearchConfig
from evolq_jax.search.restarts import Restarts
from evolq_jax.search.space import SearchSpace


class SearchedSegment(NamedTuple):
    """Static things of one segment: its number, space, strategy, and that of the first pass."""

    number: int
    space: SearchSpace
    strategy: Restarts
    grid: Restarts | None
    size: int  # blocks searched at once
    firsts: tuple[int, ...]  # the first of them at each visit


def searched_segment(
    config: SearchConfig, parts: ModelParts, specs: Specs, qparams: QParams, number: int
) -> SearchedSegment | None:
    """A segment's space and strategy, of which all its blocks share the programs; None: nothing is searched.

    Raises:
      UserError: a pattern matches nothing, or the algorithm does not take these settings.
    """
    segment = parts.segments[number]
    scaled = [name for name, spec in specs if spec.has_scale]
    inside = [site for site in select(config.sites, scaled) if is_stacked(parts, site)]
    if inside and not any(site.startswith(f"{segment.name}/") for site in inside):
        return None  # all that is searched is in other segments
    space = config.space(scaled, segment.name, specs)
    size, firsts = config.visits(segment.length)
    start_qparams = programs.slice_blocks(scope(qparams, segment.name), np.int32(0), size)
    solution = space.encode_blocks(start_qparams)
    grid = Restarts(config.make_algorithm(solution, "Grid")) if config.grid_start else None
    strategy = Restarts(config.make_algorithm(solution), config.restarts)
    return SearchedSegment(number, space, strategy, grid, size, firsts)
