"""A finished scan in arrays, numbers and words."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from evolq_jax.landscape.config import LandscapeConfig
from evolq_jax.landscape.directions import Directions, Points, reflected_share
from evolq_jax.landscape.jaggedness import by_resolution, lines_of_plane, spread
from evolq_jax.pipeline.load import Setup
from evolq_jax.runs.provenance import environment
from evolq_jax.verbs.landscape.design import Design, Target
from evolq_jax.verbs.landscape.inputs import Inputs


def describe(setup: Setup, target: Target, design: Design, inputs: Inputs) -> dict[str, Any]:
    """The metadata: all that a figure's caption needs. The same for a scan and its continuation."""
    config, (ground, _, explained) = setup.config, inputs
    settings = config.landscape
    corners = _corners(settings, design)
    share = reflected_share(setup.model.parts, ground.origin, ground.directions, corners, log=design.log)
    return {
        "name": config.name,
        "target": target.name,
        "kind": settings.kind,
        "model": setup.model.name,
        "scheme": config.quant.scheme,
        "weight_bits": config.quant.weight_bits,
        "edge_weight_bits": config.quant.edge_weight_bits,
        "activation_bits": config.quant.activation_bits,
        "seed": config.seed,
        "landscape": json.loads(json.dumps(dataclasses.asdict(settings))),
        "axes": list(settings.axes),
        "axis_labels": [axis_label(settings, number) for number in range(len(settings.axes))],
        "columns": [column.name for column in design.columns],
        "units": [column.unit for column in design.columns],
        "left_out": list(design.left_out),
        "num_images": design.num_images,
        "moving_sites": list(design.moving),
        "moving_scales": sum(int(leaf[0].size) for leaf in ground.directions.values()),
        "direction_norms": _norms(ground.directions),
        "cosine_of_axes": _cosine(ground.directions) if settings.kind == "plane" else None,
        "principal_shares": list(explained),
        "reflected_share": round(float(share), 6),
        **environment(setup.mesh),
    }


def axis_label(settings: LandscapeConfig, axis: int) -> str:
    """What coordinate 1 of an axis means."""
    name, epsilon = settings.axes[axis], f"{settings.epsilon:g}"
    return {
        "uniform": f"uniform direction, units of ±{epsilon}",
        "gaussian": f"random direction, units of {epsilon} in log scale",
        "filter": f"filter-normalised direction, units of {epsilon}",
        "ratio": f"log ratio of all scales, units of {epsilon}",
        "between": "0: origin, 1: other end",
        "principal": f"principal direction {settings.axes[: axis + 1].count('principal')}, units of its rms",
    }[name]


def arrays_of(design: Design, losses: np.ndarray) -> dict[str, np.ndarray]:
    """The arrays of `landscape.npz`: axes, losses [columns, ...] and every number of every line."""
    grid = design.grid
    cube = np.moveaxis(losses.reshape(*grid.shape, -1), -1, 0)
    names = np.array([column.name for column in design.columns])
    arrays = {"x": grid.axis, "losses": cube, "columns": names}
    plane = not grid.lines and grid.points.coordinates.shape[1] == 2
    if plane:
        arrays["y"] = grid.axis
    if grid.lines:
        arrays["sites"] = np.array([line.site for line in grid.lines])
        arrays["blocks"] = np.array([line.block for line in grid.lines], np.int32)
    lines, spacing = (lines_of_plane(cube) if plane else cube), float(grid.axis[1] - grid.axis[0])
    for stride, numbers in by_resolution(lines, spacing).items():
        arrays |= {f"{name}_stride{stride}": values for name, values in numbers.items()}
    return arrays


def summarise(arrays: Mapping[str, np.ndarray], columns: Sequence[str]) -> dict[str, Any]:
    """Every number of every loss as `{"mean", "std", "lines"}`, by stride of the grid, over all lines."""
    summary: dict[str, Any] = {column: {} for column in columns}
    for key, values in arrays.items():
        name, _, stride = key.rpartition("_stride")
        if name:
            for number, column in enumerate(columns):
                summary[column].setdefault(name, {})[stride] = spread(values[number])
    return summary


def _corners(settings: LandscapeConfig, design: Design) -> Points:
    """Both ends of every direction; of a plane its four corners."""
    ends = np.array([settings.low, settings.high], np.float32)
    if settings.kind == "plane":
        coordinates = np.stack(np.meshgrid(ends, ends), axis=-1).reshape(-1, 2)
        along = np.broadcast_to(np.arange(2, dtype=np.int32), coordinates.shape)
    else:
        coordinates = np.tile(ends, design.num_directions)[:, None]
        along = np.repeat(np.arange(design.num_directions, dtype=np.int32), 2)[:, None]
    everywhere = np.full(len(coordinates), -1, np.int32)
    return Points(*map(jax.numpy.asarray, (coordinates, along, everywhere, everywhere)))


def _flat(directions: Directions) -> np.ndarray:
    """[M, moving scales], in float64."""
    leaves = [np.asarray(leaf, np.float64).reshape(len(leaf), -1) for leaf in directions.values()]
    return np.concatenate(leaves, axis=1)


def _norms(directions: Directions) -> list[float]:
    return [float(norm) for norm in np.linalg.norm(_flat(directions), axis=1)]


def _cosine(directions: Directions) -> float:
    """Between a plane's axes; a random pair is nearly orthogonal where many scales move."""
    x, y = _flat(directions)
    return float(x @ y / (np.linalg.norm(x) * np.linalg.norm(y)))
