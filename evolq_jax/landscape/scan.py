"""Losses at many points of scale space: one program per segment, points over devices, images in chunks."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from evolq_jax.devices.mesh import AXES, one_device, replicate, spread
from evolq_jax.landscape.config import LossName
from evolq_jax.landscape.directions import Directions, Points, scales_at
from evolq_jax.landscape.grid import Batch, Grid, Start, batches
from evolq_jax.landscape.losses import all_losses
from evolq_jax.network.chunks import in_chunks
from evolq_jax.network.parts import ModelParts
from evolq_jax.network.point import Quantized, at_qparams
from evolq_jax.network.run import at, index_in, normalize, run_blocks
from evolq_jax.network.walk import embed, suffix_ends
from evolq_jax.objective.fitness import relative_error
from evolq_jax.quant.qparams import QParams
from evolq_jax.quant.sites import fake_quant_weights, quant_sites
from evolq_jax.quant.spec import Specs
from evolq_jax.typing import Array, Params, Preprocessing


@dataclass(frozen=True)
class Program:
    """The static settings of a scan's program. `log` says which axes are in the logarithm."""

    parts: ModelParts
    specs: Specs
    preprocessing: Preprocessing
    losses: tuple[LossName, ...]
    batch_size: int
    image_chunk: int
    point_chunk: int
    log: tuple[bool, ...]


class Ground(NamedTuple):
    """The arrays of a scan that are the same for all points."""

    params: Params
    origin: QParams
    directions: Directions
    teacher: Array  # [B, C]
    labels: Array | None  # int32 [B]
    temperatures: Array  # [temperatures]
    features: Array | None = None  # the teacher's [B, ...], where the losses have them


def scan(
    program: Program, ground: Ground, grid: Grid, pixels: Array, mesh: Mesh | None = None, first: int = 0
) -> Iterator[tuple[Batch, np.ndarray]]:
    """Yields the losses [points, columns] of one batch of grid points after the other.

    Every call has the same number of points; the last one is padded. So the blocks of a segment share one
    program. A scan that is continued at the end of a batch gives the same bits as one that never stopped.

    Args:
      program: static settings.
      ground: the arrays that are the same for all points.
      grid: the points.
      pixels: uint8 images [B, height, width, channels].
      mesh: the devices over which points are spread; None: one.
      first: the point to begin with; it must be the first of a batch.
    """
    mesh = mesh or one_device()
    size = program.point_chunk * mesh.size
    # Once, or every call would copy them from the first device to the others.
    ground, pixels = replicate(mesh, (ground, pixels))
    prefix = _Prefix(program, ground, pixels)
    for batch in batches(grid, size):
        if batch.first < first:
            continue
        x, segment = prefix.input_of(batch.start), batch.start.segment
        rows = np.minimum(np.arange(batch.first, batch.first + size), batch.last - 1)
        points = jax.tree.map(lambda leaf, rows=rows: leaf[rows], grid.points)
        found = _losses(program, segment, mesh, ground, points, x, np.int32(batch.start.block))
        yield batch, np.asarray(found)[: batch.last - batch.first]


@partial(jax.jit, static_argnames=("program", "segment", "mesh"))
def _losses(
    program: Program, segment: int | None, mesh: Mesh, ground: Ground, points: Points, x: Array, start: Array
) -> Array:
    """Losses [P, columns] at `points`. `x` [B, ...] is the input of block `start` (segment None: images)."""

    def on_device(ground: Ground, points: Points, x: Array, start: Array) -> Array:
        def one(point: Points) -> Array:
            return _losses_at(program, segment, ground, point, x, start)

        # A mapped axis of one costs a slower matrix product on CPU.
        found = one(at(points, 0))[None] if program.point_chunk == 1 else jax.vmap(one)(points)
        return found if mesh.size == 1 else jax.lax.all_gather(found, AXES, tiled=True)

    out_specs = P() if mesh.size > 1 else P(AXES)
    return spread(mesh, on_device, (P(), P(AXES), P(), P()), out_specs)(ground, points, x, start)


def _losses_at(
    program: Program, segment: int | None, ground: Ground, point: Points, x: Array, start: Array
) -> Array:
    """Losses [columns] at one point."""
    parts, make_site = program.parts, quant_sites(program.specs)
    qparams = scales_at(parts, program.log, ground.origin, ground.directions, point)
    params = fake_quant_weights(program.specs, ground.params, qparams)

    def chunk_ends(x: Array) -> tuple[Array, Array | None]:
        if segment is None:
            images = normalize(program.preprocessing, x)
            x = parts.segments[0].enter(params, make_site("", qparams), images)
        at_start = params, qparams, x, index_in(parts.segments[segment or 0], start)
        return suffix_ends(parts, make_site, segment or 0, *at_start, "features" in program.losses)

    logits, features = in_chunks(chunk_ends, x, program.image_chunk)
    error = None
    if features is not None and ground.features is not None:
        error = relative_error(features, ground.features).mean()
    data = ground.teacher, ground.labels, ground.temperatures, error
    return all_losses(program.losses, program.batch_size, logits, *data)


class _Prefix:
    """The input of the block with which a batch of points starts. Starts come in the network's order."""

    def __init__(self, program: Program, ground: Ground, pixels: Array) -> None:
        self._program, self._pixels = program, pixels
        self._network = _at_origin(program, ground)
        self._place, self._input = Start(None, 0), pixels

    def input_of(self, start: Start) -> Array:
        """The images, or the activations [B, ...] before a block, moved on from the last ones asked for."""
        if start.segment is None:
            return self._pixels
        while self._place != start:
            self._advance()
        return self._input

    def _advance(self) -> None:
        """Moves on by one block, or into the next segment."""
        (segment, block), args = self._place, (self._network, self._input)
        if segment is None:
            self._place, self._input = Start(0, 0), _enter(self._program, 0, *args)
        elif block < self._program.parts.segments[segment].length:
            self._place, self._input = (
                Start(segment, block + 1),
                _run_block(self._program, segment, *args, np.int32(block)),
            )
        else:
            self._place, self._input = Start(segment + 1, 0), _enter(self._program, segment + 1, *args)


@partial(jax.jit, static_argnames=("program",))
def _at_origin(program: Program, ground: Ground) -> Quantized:
    return at_qparams(program.specs, ground.params, ground.origin)


@partial(jax.jit, static_argnames=("program", "number"))
def _enter(program: Program, number: int, network: Quantized, x: Array) -> Array:
    """Enters a segment. The first one takes uint8 images, later ones the output of the one before."""
    make_site, (_, params, qparams) = quant_sites(program.specs), network
    if number == 0:
        settings = program.parts, make_site, program.image_chunk, program.preprocessing
        return embed(*settings, params, qparams, x)
    segment = program.parts.segments[number]
    return in_chunks(lambda x: segment.enter(params, make_site("", qparams), x), x, program.image_chunk)


@partial(jax.jit, static_argnames=("program", "number"))
def _run_block(program: Program, number: int, network: Quantized, x: Array, block: Array | int) -> Array:
    segment, make_site = program.parts.segments[number], quant_sites(program.specs)
    block = index_in(segment, block)

    def one_chunk(x: Array) -> Array:
        return run_blocks(segment, make_site, network.quantized, network.qparams, x, block, block + 1)

    return in_chunks(one_chunk, x, program.image_chunk)
