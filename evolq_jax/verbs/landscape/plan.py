"""What a scan would do, before it does it."""

from pathlib import Path
from typing import Any

import jax
import numpy as np

from evolq_jax.config.experiment import Experiment
from evolq_jax.devices.mesh import mesh_text
from evolq_jax.devices.precision import matmul_precision
from evolq_jax.landscape.config import LandscapeConfig
from evolq_jax.landscape.grid import network_share
from evolq_jax.pipeline.cost import MIB, process_bytes
from evolq_jax.pipeline.load import Setup, load_model
from evolq_jax.verbs.landscape.design import Design, make_design, open_target
from evolq_jax.verbs.search.plan import INTEGER_LAYER_NORM, OVERHEAD, float_speed

PROGRAMS = 3  # compiling a scan and its prefix, relative to the float forward
CALIBRATION = 2  # images' worth of float forwards that calibration and the teacher take


def plan_landscape(
    target: str | Path | Experiment, landscape: LandscapeConfig | None = None
) -> dict[str, Any]:
    """The plan of a scan: reads weights, lists images, times a float batch, writes nothing.

    Returns:
      Counts, sizes in MiB and seconds, by name; time and memory are estimates.

    Raises:
      UserError: as the scan itself would, for weights, images, runs and patterns.
    """
    opened = open_target(target, landscape)
    settings, quant = opened.config.landscape, opened.config.quant
    image_chunk, point_chunk = settings.chunks()
    with matmul_precision(opened.config.precision):
        setup = load_model(opened.config)
        design = make_design(setup, opened.run)
        compiling, rate = float_speed(setup, image_chunk)
    points, share = len(design.grid.starts), network_share(design.grid, setup.model.parts)
    overhead = OVERHEAD[quant.scheme] * (INTEGER_LAYER_NORM if quant.integer_layer_norm else 1.0)
    num_devices = 1 if setup.mesh is None else setup.mesh.size
    images = design.num_images * (points * share * overhead / num_devices + CALIBRATION)
    return {
        "model": setup.model.name,
        "scheme": f"{quant.scheme} W{quant.weight_bits}A{quant.activation_bits}",
        "kind": settings.kind,
        "directions": f"{design.num_directions} ({', '.join(settings.axes)})",
        "moving_sites": ", ".join(design.moving),
        "points": points,
        "grid": " × ".join(map(str, design.grid.shape)),
        "losses": ", ".join(column.name for column in design.columns),
        "left_out_without_labels": ", ".join(design.left_out) or "nothing",
        "images": f"{design.num_images} {settings.images} images",
        "network_share_per_point": round(share, 3),
        "image_chunk": image_chunk,
        "point_chunk": point_chunk,
        "float_images_per_second": round(rate, 1),
        "estimated_seconds": round(images / rate + PROGRAMS * compiling, 1),
        "estimated_memory_mib": round((process_bytes() + memory(setup, design)) / MIB),
        "device": jax.devices()[0].device_kind,
        "mesh": mesh_text(setup.mesh),
    }


def memory(setup: Setup, design: Design) -> int:
    """Bytes that a scan holds on each device: weights, one block's input, activations, directions."""
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
