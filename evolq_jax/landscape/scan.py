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
from evolq_jax.landscape.directions import Directions, Points, scales_at
from evolq_jax.landscape.grid import Batch, Grid, Start, batches
from evolq_jax.landscape.losses import Loss, all_losses, joint_objective
from evolq_jax.network.chunks import in_chunks
from evolq_jax.network.parts import ModelParts
from evolq_jax.network.point import Quantized, at_qparams
from evolq_jax.network.reading import Reading, quantized_reading
from evolq_jax.network.run import at, index_in, normalize, run_blocks
from evolq_jax.network.walk import embed, suffix_logits
from evolq_jax.objective.objective import Outputs, Teacher
from evolq_jax.quant.qparams import QParams
from evolq_jax.quant.sites import fake_quant_weights
from evolq_jax.quant.spec import Specs
from evolq_jax.typing import Array, Params, Preprocessing


@dataclass(frozen=True)
class Program:
    """The static settings of a scan's program. `log` says which axes are in the logarithm."""

    parts: ModelParts
    specs: Specs
    preprocessing: Preprocessing
    losses: tuple[Loss, ...]
    log: tuple[bool, ...]
    image_chunk: int = 10
    point_chunk: int = 1


class Entry(NamedTuple):
    """Where a batch of points enters the network: the input of the first block that moves, or the images."""

    x: Array  # [B, ...]
    block: Array  # its number in its segment


class Ground(NamedTuple):
    """The arrays of a scan that are the same for all points."""

    params: Params
    origin: QParams
    directions: Directions
    teacher: Teacher
    labels: Array | None  # int32 [B]
    temperatures: Array  # [temperatures]


def scan(
    program: Program, ground: Ground, grid: Grid, pixels: Array, *, mesh: Mesh | None = None, first: int = 0
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
        entry = Entry(x, np.int32(batch.start.block))  # type: ignore[arg-type]
        found = _losses(program, ground, points, entry, segment=segment, mesh=mesh)
        yield batch, np.asarray(found)[: batch.last - batch.first]


@partial(jax.jit, static_argnames=("program", "segment", "mesh"))
def _losses(
    program: Program, ground: Ground, points: Points, entry: Entry, *, segment: int | None, mesh: Mesh
) -> Array:
    """Losses [P, columns] at `points`; `segment` None: from images."""

    def on_device(ground: Ground, points: Points, entry: Entry) -> Array:
        def one(point: Points) -> Array:
            return _losses_at(program, ground, point, entry, segment=segment)

        # A mapped axis of one costs a slower matrix product on CPU.
        found = one(at(points, 0))[None] if program.point_chunk == 1 else jax.vmap(one)(points)
        return found if mesh.size == 1 else jax.lax.all_gather(found, AXES, tiled=True)

    out_specs = P() if mesh.size > 1 else P(AXES)
    return spread(mesh, on_device, (P(), P(AXES), P()), out_specs)(ground, points, entry)


def _losses_at(
    program: Program, ground: Ground, point: Points, entry: Entry, *, segment: int | None
) -> Array:
    """Losses [columns] at one point."""
    parts, number = program.parts, segment or 0
    qparams = scales_at(parts, ground.origin, ground.directions, point, log=program.log)
    params = fake_quant_weights(program.specs, ground.params, qparams)

    def one_chunk(x: Array) -> Outputs:
        def logits(reading: Reading) -> Array:
            y = x
            if segment is None:
                images = normalize(program.preprocessing, x)
                y = parts.segments[0].enter(params, reading.outside, images)
            start = index_in(parts.segments[number], entry.block)
            return suffix_logits(parts, reading, y, number=number, start=start)

        quantized = quantized_reading(program.specs, params, qparams)
        return joint_objective(program.losses).outputs(parts, quantized, logits)

    outputs = in_chunks(one_chunk, entry.x, program.image_chunk)
    labels, temperatures = ground.labels, ground.temperatures
    return all_losses(program.losses, outputs, ground.teacher, labels=labels, temperatures=temperatures)


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
        (segment, block), program = self._place, self._program
        if segment is not None and block < program.parts.segments[segment].length:
            index = np.int32(block)
            self._input = _run_block(program, self._network, self._input, index, number=segment)
            self._place = Start(segment, block + 1)
        else:
            number = 0 if segment is None else segment + 1
            self._input = _enter(program, self._network, self._input, number=number)
            self._place = Start(number, 0)


@partial(jax.jit, static_argnames=("program",))
def _at_origin(program: Program, ground: Ground) -> Quantized:
    return at_qparams(program.specs, ground.params, ground.origin)


@partial(jax.jit, static_argnames=("program", "number"))
def _enter(program: Program, network: Quantized, x: Array, *, number: int) -> Array:
    """Enters a segment. The first one takes uint8 images, later ones the output of the one before."""
    quantized, chunk = network.reading(program.specs), program.image_chunk
    if number == 0:
        return embed(program.parts, quantized, x, preprocessing=program.preprocessing, chunk=chunk)
    enter = partial(program.parts.segments[number].enter, quantized.params, quantized.outside)
    return in_chunks(enter, x, chunk)


@partial(jax.jit, static_argnames=("program", "number"))
def _run_block(program: Program, network: Quantized, x: Array, block: Array | int, *, number: int) -> Array:
    segment, quantized = program.parts.segments[number], network.reading(program.specs)
    start = index_in(segment, block)

    def one_chunk(x: Array) -> Array:
        return run_blocks(segment, quantized, x, start=start, stop=start + 1)

    return in_chunks(one_chunk, x, program.image_chunk)
