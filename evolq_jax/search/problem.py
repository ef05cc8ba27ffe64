"""What a search is given and does not change: the problem, which is static, and its arrays."""

from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from evolq_jax.devices.mesh import replicate
from evolq_jax.errors import UserError
from evolq_jax.network.parts import ModelParts, blocks_before
from evolq_jax.network.run import window
from evolq_jax.network.sites import is_stacked
from evolq_jax.objective.objective import Objective, Teacher
from evolq_jax.quant.qparams import QParams
from evolq_jax.quant.spec import Specs, scope, select
from evolq_jax.search.algorithms.grid import GRID
from evolq_jax.search.algorithms.strategy import Strategy
from evolq_jax.search.config import SearchConfig
from evolq_jax.search.halving import image_counts
from evolq_jax.search.runner import Runner
from evolq_jax.search.space import SearchSpace
from evolq_jax.typing import Array, Params


class Place(NamedTuple):
    """Where a visit is: a few neighbouring blocks of a segment, in a pass."""

    pass_number: int
    segment: int  # its number
    block: int  # the first of the blocks
    size: int  # how many

    def in_network(self, parts: ModelParts) -> int:
        """The number of the first block in the whole network."""
        return blocks_before(parts, self.segment, self.block)


@dataclass(frozen=True)
class Part:
    """Some of the calibration images, and what is minimised on them."""

    objective: Objective
    num_images: int


@dataclass(frozen=True)
class SearchedSegment:
    """What of a segment is searched, and how. All its blocks share the programs.

    Attributes:
      number: which of the network's segments it is.
      space: the sites that move, and how solutions stand for them.
      strategy: the algorithm at work.
      grid: the same for the first pass, where that is one of grids.
    """

    number: int
    space: SearchSpace
    strategy: Strategy
    grid: Strategy | None


@dataclass(frozen=True)
class Problem:
    """What a search does, apart from arrays. Frozen and hashable.

    Attributes:
      config: its settings.
      runner: how the network is run.
      searched: the images that candidates are scored on.
      held_out: the images that only decide on moves; None: there are none.
      segments: those that are searched, in the order of visits.
      image_counts: images that candidates are scored on, in each stage of a generation.
    """

    config: SearchConfig
    runner: Runner
    searched: Part
    held_out: Part | None
    segments: tuple[SearchedSegment, ...]
    image_counts: tuple[int, ...]

    @property
    def parts_of_images(self) -> tuple[Part, ...]:
        """The images searched on and, where there are some, those held out."""
        return (self.searched,) if self.held_out is None else (self.searched, self.held_out)

    @property
    def scores_some(self) -> bool:
        """Whether the program that scores a generation can stop after the first ones of its candidates.

        Where they run one by one, it then also scores a single candidate.
        """
        return self.runner.one_by_one and self.config.num_candidates > 1

    @property
    def num_images(self) -> int:
        """Of all parts."""
        return sum(part.num_images for part in self.parts_of_images)

    @cached_property
    def places(self) -> tuple[Place, ...]:
        """The visits of a pass."""
        parts, visits = self.runner.parts, self.config.visits
        sizes = {segment.number: visits(parts.segments[segment.number].length) for segment in self.segments}
        return tuple(
            Place(0, number, block, size) for number, (size, firsts) in sizes.items() for block in firsts
        )

    @property
    def passes(self) -> int | None:
        """Passes over the blocks; None: until the budget is spent."""
        config = self.config
        return None if config.budget is not None else config.passes + bool(config.grid_start)

    def place(self, visits: int) -> Place:
        """Where the search is after so many visits."""
        pass_number, number = divmod(visits, len(self.places))
        return self.places[number]._replace(pass_number=pass_number)

    def begins_pass(self, visits: int) -> bool:
        """Whether the visit after so many is the first of a pass."""
        return visits % len(self.places) == 0

    def segment(self, place: Place) -> SearchedSegment:
        """The searched segment of a place."""
        return next(segment for segment in self.segments if segment.number == place.segment)

    @property
    def whole(self) -> "Problem":
        """The same with objectives that tell two whole networks apart."""
        searched, *held_out = (replace(part, objective=part.objective.whole) for part in self.parts_of_images)
        return replace(self, searched=searched, held_out=held_out[0] if held_out else None)


class Data(NamedTuple):
    """The arrays of a search that stay. With several devices they lie on these as programs want them."""

    params: Params  # float, after calibration's chain
    tokens: Array  # the calibration images at the first segment's entry, quantized [B, ...]
    teachers: tuple[Teacher, ...]  # on the images searched on, and on those held out


def make_problem(
    config: SearchConfig,
    parts: ModelParts,
    specs: Specs,
    qparams: QParams,
    *,
    num_images: int,
    mesh: Mesh | None = None,
) -> Problem:
    """The problem of a network and a number of calibration images.

    Args:
      config: the settings.
      parts: the network's functions.
      specs: its quantizers, resolved.
      qparams: the quantizers' numbers, of which only names and shapes count.
      num_images: B, those held out included.
      mesh: the devices that candidates and images are spread over; None: one device.

    Raises:
      UserError: the images are no multiple of the contrastive batch or too few to hold some out, a pattern
        matches nothing, or the algorithm does not take these settings.
    """
    config = config.fitted(num_images)
    batch_size = config.batch_size or 1
    if num_images % batch_size:
        raise UserError(
            f"{num_images} calibration images are no multiple of the contrastive batch of "
            f"{batch_size}; set search.batch_size or data.num_calibration"
        )
    held_out = config.num_held_out(num_images)
    objective, held_out_objective = config.objectives()
    scaled = [name for name, spec in specs if spec.has_scale]
    inside = [site for site in select(config.sites, scaled) if is_stacked(parts, site)]
    segments = [
        _searched_segment(config, parts, specs, qparams, number=number)
        for number, segment in enumerate(parts.segments)
        if not inside or any(site.startswith(f"{segment.name}/") for site in inside)
    ]
    image_chunk, population_chunk = config.chunks()
    placement = config.placement(mesh, num_images)
    return Problem(
        config,
        Runner(parts, specs, image_chunk, population_chunk, placement, config.counts_blocks),
        searched=Part(objective, num_images - held_out),
        held_out=Part(held_out_objective, held_out) if held_out else None,
        segments=tuple(reversed(segments)),
        image_counts=image_counts(config.halving, num_images - held_out, batch_size),
    )


def _searched_segment(
    config: SearchConfig, parts: ModelParts, specs: Specs, qparams: QParams, *, number: int
) -> SearchedSegment:
    """A segment's space and strategies.

    Raises:
      UserError: a pattern matches nothing, or the algorithm does not take these settings.
    """
    segment = parts.segments[number]
    scaled = [name for name, spec in specs if spec.has_scale]
    space, (size, _) = config.space(scaled, segment.name, specs), config.visits(segment.length)

    def first_solution(qparams: QParams) -> dict[str, Array]:
        return space.encode_blocks(window(scope(qparams, segment.name), 0, size))

    shapes = {name: leaf.shape for name, leaf in jax.eval_shape(first_solution, qparams).items()}
    strategy, grid = _strategies(config, tuple(shapes.items()))
    return SearchedSegment(number, space, strategy, grid)


@lru_cache(maxsize=64)  # programs are compiled for an object, so equal problems must share it
def _strategies(
    config: SearchConfig, shapes: tuple[tuple[str, tuple[int, ...]], ...]
) -> tuple[Strategy, Strategy | None]:
    """The algorithm for solutions of these shapes, and the grid of the first pass if there is one."""
    solution = {name: np.zeros(shape, np.float32) for name, shape in shapes}
    grid = Strategy(GRID, GRID.build(config, solution)) if config.grid_start else None
    return config.strategy(solution), grid


def make_data(problem: Problem, params: Params, tokens: Array, teacher: Teacher) -> Data:
    """The arrays, put on the problem's devices.

    Args:
      problem: what is searched.
      params: float parameters (after calibration's chain).
      tokens: the calibration images at the first segment's entry, quantized [B, ...]; with several devices
        as the problem's placement puts them.
      teacher: what the float network makes of the same images.
    """
    first, mesh = problem.searched.num_images, problem.runner.mesh
    parts = [slice(first)] if problem.held_out is None else [slice(first), slice(first, None)]
    teachers = tuple(teacher.rows(part) for part in parts)
    return Data(replicate(mesh, params), tokens, replicate(mesh, teachers))
