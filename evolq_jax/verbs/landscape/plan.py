"""The plan of a scan: counts and memory, and the time by a short measurement."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import jax
import numpy as np

from evolq_jax.config.experiment import Experiment
from evolq_jax.devices.mesh import mesh_text
from evolq_jax.devices.precision import matmul_precision
from evolq_jax.landscape.config import Kind, LandscapeConfig
from evolq_jax.landscape.grid import network_share
from evolq_jax.pipeline.cost import process_bytes
from evolq_jax.pipeline.held import MIB
from evolq_jax.pipeline.load import Setup, load_model
from evolq_jax.pipeline.speed import measure_speed
from evolq_jax.verbs.landscape.design import Design, make_design, open_target

PROGRAMS = 3  # the time to compile a scan and its prefix, relative to the float forward's
CALIBRATION = 2  # float forward passes of every image that calibration and the teacher take


@dataclass(frozen=True, kw_only=True)
class LandscapePlan:
    """What a scan would do. Time and memory are estimates.

    Attributes:
      model: its name in the registry.
      network: its sizes and options.
      preprocessing: how images are prepared for it.
      scheme: of quantization, with its bits.
      scan: lines, a plane, or lines layer by layer.
      num_directions: the number of directions.
      axes: the direction of each axis.
      moving_sites: the sites whose scales move.
      points: the number of points of the grid.
      grid: the grid's sizes.
      losses: what is computed at every point.
      left_out: losses that need labels, which the images do not have.
      num_images: the number of images scored at every point.
      images: where they come from.
      network_share_per_point: mean share of the blocks that a point runs.
      image_chunk: images that run at once.
      point_chunk: points that run at once.
      float_images_per_second: the measured speed of the float network.
      estimated_seconds: the time of the whole scan.
      estimated_memory_mib: the memory of the process, and of its arrays on the device.
      device: its kind.
      mesh: as `--mesh` takes it.
    """

    kind: Literal["landscape plan"] = "landscape plan"
    model: str
    network: str
    preprocessing: str
    scheme: str
    scan: Kind
    num_directions: int
    axes: tuple[str, ...]
    moving_sites: tuple[str, ...]
    points: int
    grid: tuple[int, ...]
    losses: tuple[str, ...]
    left_out: tuple[str, ...]
    num_images: int
    images: str
    network_share_per_point: float
    image_chunk: int
    point_chunk: int
    float_images_per_second: float
    estimated_seconds: float
    estimated_memory_mib: int
    device: str
    mesh: str


def plan_landscape(
    target: str | Path | Experiment, landscape: LandscapeConfig | None = None
) -> LandscapePlan:
    """Plans a scan. Reads the weights, lists the images, times a float batch, and writes nothing.

    Raises:
      UserError: the weights, the images, a run or a pattern is wrong, as for the scan itself.
    """
    opened = open_target(target, landscape)
    settings, quant = opened.config.landscape, opened.config.quant
    image_chunk, point_chunk = settings.chunks()
    with matmul_precision(opened.config.precision):
        setup = load_model(opened.config)
        design = make_design(setup, opened.run)
        speed = measure_speed(setup, image_chunk)
    points, share = len(design.grid.starts), network_share(design.grid, setup.model.parts)
    num_devices = 1 if setup.mesh is None else setup.mesh.size
    scanning = points * share / (speed.quantized * num_devices)
    seconds = design.num_images * (scanning + CALIBRATION / speed.floating) + PROGRAMS * speed.compiling
    return LandscapePlan(
        model=setup.model.name,
        network=setup.model.described,
        preprocessing=str(setup.model.preprocessing),
        scheme=f"{quant.scheme} W{quant.weight_bits}A{quant.activation_bits}",
        scan=settings.kind,
        num_directions=design.num_directions,
        axes=settings.axes,
        moving_sites=design.moving,
        points=points,
        grid=tuple(design.grid.shape),
        losses=tuple(column.name for column in design.columns),
        left_out=design.left_out,
        num_images=design.num_images,
        images=settings.images,
        network_share_per_point=round(share, 3),
        image_chunk=image_chunk,
        point_chunk=point_chunk,
        float_images_per_second=round(speed.floating, 1),
        estimated_seconds=round(seconds, 1),
        estimated_memory_mib=round((process_bytes() + scan_bytes(setup, design)) / MIB),
        device=jax.devices()[0].device_kind,
        mesh=mesh_text(setup.mesh),
    )


def scan_bytes(setup: Setup, design: Design) -> int:
    """The bytes that a scan holds on each device: weights, one block's input, activations, directions."""
    image_chunk, point_chunk = setup.config.landscape.chunks()
    weights = sum(leaf.nbytes for leaf in jax.tree.leaves(setup.model.params))
    blocks = {
        segment.name: [info for name, info in setup.sites.items() if name.startswith(segment.name + "/")]
        for segment in setup.model.parts.segments
    }
    tokens = max(4 * int(np.prod(infos[0].shape)) for infos in blocks.values())
    activations = max(
        sum(4 * int(np.prod(info.shape)) for info in infos if not info.is_weight) for infos in blocks.values()
    )
    size, channels = setup.model.preprocessing.size, len(setup.model.preprocessing.mean)
    specs = dict(setup.specs)
    moving = sum(
        (setup.sites[name].depth or 1) * (setup.sites[name].shape[-1] if specs[name].per_channel else 1)
        for name in design.moving
    )
    return (
        weights * (1 + point_chunk)
        + design.num_images * (tokens + size * size * channels)
        + image_chunk * point_chunk * activations
        + 4 * moving * design.num_directions
    )
