"""Describes a finished scan in arrays, numbers and words."""

import jax
import numpy as np

from evolq_jax.landscape.config import LandscapeConfig
from evolq_jax.landscape.directions import Directions, Points, reflected_share
from evolq_jax.landscape.jaggedness import Jaggedness, by_resolution, lines_of_plane, summarise
from evolq_jax.pipeline.load import Setup
from evolq_jax.runs.provenance import Provenance, provenance
from evolq_jax.runs.results.common import setting_of
from evolq_jax.runs.results.landscape import LandscapeMetadata
from evolq_jax.verbs.landscape.design import Design, Target
from evolq_jax.verbs.landscape.inputs import Inputs, digest_arrays


def provenance_of(setup: Setup, inputs: Inputs) -> Provenance:
    """What, beside the config, decides the bits of a loss."""
    images, points = setup.config.landscape.chunks()
    digest = digest_arrays((inputs.ground, inputs.pixels))
    return provenance(
        setup.mesh,
        fingerprints={"scales, weights and images": digest},
        chunks={"images": images, "points": points},
    )


def metadata_of(setup: Setup, target: Target, design: Design, inputs: Inputs) -> LandscapeMetadata:
    """All that a figure's caption needs. A continued scan has the same."""
    config, (ground, _, explained) = setup.config, inputs
    settings = config.landscape
    corners = _corners(settings, design)
    share = reflected_share(setup.model.parts, ground.origin, ground.directions, corners, log=design.log)
    return LandscapeMetadata(
        target=target.name,
        setting=setting_of(config, setup.model, setup.added_parameters),
        landscape=settings,
        axes=settings.axes,
        axis_labels=tuple(axis_label(settings, number) for number in range(len(settings.axes))),
        columns=tuple(column.name for column in design.columns),
        units=tuple(column.unit for column in design.columns),
        left_out=design.left_out,
        num_images=design.num_images,
        moving_sites=design.moving,
        moving_scales=sum(int(leaf[0].size) for leaf in ground.directions.values()),
        direction_norms=_norms(ground.directions),
        cosine_of_axes=_cosine(ground.directions) if settings.kind == "plane" else None,
        principal_shares=explained,
        reflected_share=round(float(share), 6),
        provenance=provenance_of(setup, inputs),
    )


def axis_label(settings: LandscapeConfig, axis: int) -> str:
    """A label that says what coordinate 1 of an axis means. Both axes of a plane have their own."""
    name, epsilon = settings.axes[axis], f"{settings.epsilon:g}"
    number = f" {axis + 1}" if settings.axes.count(name) > 1 else ""
    return {
        "uniform": f"uniform direction{number}, units of ±{epsilon}",
        "gaussian": f"random direction{number}, units of {epsilon} in log scale",
        "filter": f"filter-normalised direction{number}, units of {epsilon}",
        "ratio": f"log ratio of all scales, units of {epsilon}",
        "between": f"from {settings.origin} (0) to {_other_end(settings)} (1)",
        "principal": f"principal direction {settings.axes[: axis + 1].count('principal')}, units of its rms",
    }[name]


def _other_end(settings: LandscapeConfig) -> str:
    if settings.towards is not None:
        return "another run's final"
    return "init" if settings.origin == "final" else "final"


def arrays_of(design: Design, losses: np.ndarray) -> dict[str, np.ndarray]:
    """The arrays of `landscape.npz`: axes, losses [columns, ...], and the jaggedness of every line."""
    grid = design.grid
    names = np.array([column.name for column in design.columns])
    arrays = {"x": grid.axis, "losses": _cube(design, losses), "columns": names}
    if _is_plane(design):
        arrays["y"] = grid.axis
    if grid.lines:
        arrays["sites"] = np.array([line.site for line in grid.lines])
        arrays["blocks"] = np.array([line.block for line in grid.lines], np.int32)
    for stride, numbers in _numbers(design, losses).items():
        arrays |= {f"{name}_stride{stride}": values for name, values in numbers.items()}
    return arrays


def jaggedness_of(design: Design, losses: np.ndarray) -> dict[str, Jaggedness]:
    """How jagged each loss is, over all lines."""
    by_stride, found = _numbers(design, losses), dict[str, Jaggedness]()
    for number, column in enumerate(design.columns):
        of_column = {
            stride: {name: values[number] for name, values in numbers.items()}
            for stride, numbers in by_stride.items()
        }
        found[column.name] = summarise(of_column)
    return found


def _numbers(design: Design, losses: np.ndarray) -> dict[int, dict[str, np.ndarray]]:
    """The measures of jaggedness by stride and name: [columns, ...], one number for each line."""
    cube, axis = _cube(design, losses), design.grid.axis
    return by_resolution(lines_of_plane(cube) if _is_plane(design) else cube, float(axis[1] - axis[0]))


def _cube(design: Design, losses: np.ndarray) -> np.ndarray:
    """Losses [points, columns] as [columns, ...]."""
    return np.moveaxis(losses.reshape(*design.grid.shape, -1), -1, 0)


def _is_plane(design: Design) -> bool:
    return not design.grid.lines and design.grid.points.coordinates.shape[1] == 2


def _corners(settings: LandscapeConfig, design: Design) -> Points:
    """Both ends of every direction; of a plane, its four corners."""
    ends = np.array([settings.low, settings.high], np.float32)
    if settings.kind == "plane":
        coordinates = np.stack(np.meshgrid(ends, ends), axis=-1).reshape(-1, 2)
        along = np.broadcast_to(np.arange(2, dtype=np.int32), coordinates.shape)
    else:
        coordinates = np.tile(ends, design.num_directions)[:, None]
        along = np.repeat(np.arange(design.num_directions, dtype=np.int32), 2)[:, None]
    everywhere = np.full(len(coordinates), -1, np.int32)
    return Points(
        coordinates=jax.device_put(coordinates),
        directions=jax.device_put(along),
        site=jax.device_put(everywhere),
        block=jax.device_put(everywhere),
    )


def _flat(directions: Directions) -> np.ndarray:
    """All M directions as rows [M, moving scales], in float64."""
    leaves = [np.asarray(leaf, np.float64).reshape(len(leaf), -1) for leaf in directions.values()]
    return np.concatenate(leaves, axis=1)


def _norms(directions: Directions) -> tuple[float, ...]:
    return tuple(float(norm) for norm in np.linalg.norm(_flat(directions), axis=1))


def _cosine(directions: Directions) -> float:
    """The cosine between a plane's axes. If many scales move, a random pair is nearly orthogonal."""
    x, y = _flat(directions)
    return float(x @ y / (np.linalg.norm(x) * np.linalg.norm(y)))
