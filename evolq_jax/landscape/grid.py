"""The grid points of a scan, in the order in which they are computed."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from evolq_jax.landscape.config import LandscapeConfig
from evolq_jax.landscape.directions import Points
from evolq_jax.network.parts import ModelParts
from evolq_jax.network.sites import is_stacked


class Start(NamedTuple):
    """The first block that moves. Everything before it is the same for all points. None: the images."""

    segment: int | None
    block: int


class Line(NamedTuple):
    """A line of a layer scan: one site of one block."""

    site: str
    block: int


class Grid(NamedTuple):
    """All points of a scan, one row each, and the meaning of their order."""

    points: Points  # numpy arrays
    starts: tuple[Start, ...]  # of each point; equal ones are neighbours
    shape: tuple[int, ...]  # points by axis: [directions, T], [T, T] (y first) or [lines, directions, T]
    axis: np.ndarray  # coordinates [T], of every axis
    lines: tuple[Line, ...]  # of layers


class Batch(NamedTuple):
    """The points of one call: `points[first:last]`. All have the same start."""

    first: int
    last: int
    start: Start


def axis_coordinates(config: LandscapeConfig) -> np.ndarray:
    """Coordinates [T] of an axis. A grid that is symmetric about the origin contains it exactly."""
    axis = np.linspace(config.low, config.high, config.num_points)
    axis[np.abs(axis) < 1e-9 * (config.high - config.low)] = 0.0
    return axis.astype(np.float32)


def make_grid(config: LandscapeConfig, parts: ModelParts, moving: Sequence[str], num_directions: int) -> Grid:
    """The grid of a scan that moves these sites along `num_directions` directions (a plane: 2).

    If `config.blocks` names some blocks, the directions must be zero in the others (`keep_blocks`). Lines and
    planes then start at the first named block.
    """
    axis = axis_coordinates(config)
    if config.kind == "layers":
        return _layers(config, parts, moving, num_directions)
    start = _first_start(config, parts, moving)
    if config.kind == "plane":
        y, x = np.meshgrid(axis, axis, indexing="ij")
        coordinates = np.stack([x.ravel(), y.ravel()], axis=1)
        directions = np.broadcast_to(np.arange(2, dtype=np.int32), coordinates.shape)
        shape = (len(axis), len(axis))
    else:
        coordinates = np.tile(axis, num_directions)[:, None]
        directions = np.repeat(np.arange(num_directions, dtype=np.int32), len(axis))[:, None]
        shape = (num_directions, len(axis))
    everywhere = np.full(len(coordinates), -1, np.int32)
    points = Points(coordinates, directions, everywhere, everywhere)  # type: ignore[arg-type]
    return Grid(points, (start,) * len(coordinates), shape, axis, ())


def _layers(config: LandscapeConfig, parts: ModelParts, moving: Sequence[str], num_directions: int) -> Grid:
    axis = axis_coordinates(config)
    lines: list[Line] = []
    starts: list[Start] = []
    for number, segment in enumerate(parts.segments):
        sites = [site for site in moving if site.startswith(segment.name + "/")]
        for block in range(segment.length):
            if config.blocks and block not in config.blocks:
                continue
            lines += [Line(site, block) for site in sites]
            starts += [Start(number, block)] * len(sites)
    per_line = num_directions * len(axis)
    order = sorted(moving)
    site = np.repeat(np.array([order.index(line.site) for line in lines], np.int32), per_line)
    block = np.repeat(np.array([line.block for line in lines], np.int32), per_line)
    coordinates = np.tile(axis, len(lines) * num_directions)[:, None]
    directions = np.tile(np.repeat(np.arange(num_directions, dtype=np.int32), len(axis)), len(lines))
    points = Points(coordinates, directions[:, None], site, block)  # type: ignore[arg-type]
    shape = (len(lines), num_directions, len(axis))
    repeated = tuple(start for start in starts for _ in range(per_line))
    return Grid(points, repeated, shape, axis, tuple(lines))


def _first_start(config: LandscapeConfig, parts: ModelParts, moving: Sequence[str]) -> Start:
    if not all(is_stacked(parts, site) for site in moving):
        return Start(None, 0)
    names, blocks = {site.split("/")[0] for site in moving}, config.blocks or (0,)
    starts = (
        Start(number, block)
        for number, segment in enumerate(parts.segments)
        for block in sorted(blocks)
        if segment.name in names and block < segment.length
    )
    return next(starts)


def batches(grid: Grid, size: int) -> Iterator[Batch]:
    """The grid in order, at most `size` points at a time. All points of a batch have the same start."""
    first, total = 0, len(grid.starts)
    while first < total:
        last = first + 1
        while last < min(first + size, total) and grid.starts[last] == grid.starts[first]:
            last += 1
        yield Batch(first, last, grid.starts[first])
        first = last


def network_share(grid: Grid, parts: ModelParts) -> float:
    """The mean share of the network's blocks that a point runs. Blocks before its start are cached."""
    lengths = [segment.length for segment in parts.segments]

    def skipped(start: Start) -> int:
        return 0 if start.segment is None else sum(lengths[: start.segment]) + start.block

    return 1.0 - float(np.mean([skipped(start) for start in grid.starts])) / sum(lengths)
