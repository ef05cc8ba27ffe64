"""The pictures of a scan in files, and the page that shows them."""

from collections.abc import Mapping

import numpy as np

from evolq_jax.figures.page import Shown, Table, page
from evolq_jax.figures.picture import render
from evolq_jax.figures.style import Limits
from evolq_jax.landscape.pictures.draw import Labels, draw
from evolq_jax.landscape.pictures.words import loss_title
from evolq_jax.runs.directory import CONFIG, INDEX, LANDSCAPE, PICTURES, RunDirectory
from evolq_jax.runs.results.landscape import LandscapeMetadata, LandscapeResult
from evolq_jax.verbs.landscape.record import ARRAYS, POINTS
from evolq_jax.verbs.landscape.summary import axis_label

FILES = {
    LANDSCAPE: "the settings, and how jagged each loss is",
    ARRAYS: "the losses as arrays, for numpy or evolq_jax.read_landscape",
    POINTS: "the losses of each point, in the order in which they were computed",
    CONFIG: "the whole config",
}
NUMBERS = {
    "range": "range",
    "minima_per_unit": "minima a unit",
    "total_variation": "variation",
    "roughness": "roughness",
    "autocorrelation_length": "correlation length",
}


def labels_of(metadata: LandscapeMetadata) -> Labels:
    """What the pictures of a scan say."""
    settings = metadata.landscape
    axes = [axis_label(settings, number) for number in range(len(settings.axes))]
    return Labels(settings.kind, axes, metadata.columns, metadata.units)


def write_pictures(
    run: RunDirectory,
    arrays: Mapping[str, np.ndarray],
    result: LandscapeResult,
    limits: Mapping[str, Limits] | None = None,
) -> None:
    """Draws the pictures of a scan and writes them with `index.html`.

    Args:
      run: the scan's directory.
      arrays: as in `landscape.npz`.
      result: what they are.
      limits: of colours and axes by loss; what is not named has those of the arrays.
    """
    folder, shown = run.folder(PICTURES), list[Shown]()
    for name, caption, files in render(draw(arrays, labels_of(result), limits)):
        for kind, content in files.items():
            folder.write(f"{name}.{kind}", content)
        shown.append(Shown(caption, {kind: f"{PICTURES}/{name}.{kind}" for kind in files}))
    setting = result.setting
    text = page(
        f"Landscape of {setting.name}",
        f"The loss of {setting.model}, {setting.scheme} W{setting.weight_bits}A{setting.activation_bits}, "
        f"around the {result.landscape.origin} of {result.target}.",
        pictures=shown,
        tables=[_jaggedness(result), _settings(result)],
        files=FILES,
    )
    run.write(INDEX, text)


def _jaggedness(result: LandscapeResult) -> Table:
    """Means over lines at the grid's own spacing."""
    rows = [
        [loss_title(column), *(_number(getattr(found, name)[1].mean) for name in NUMBERS)]
        for column, found in result.jaggedness.items()
    ]
    return Table("How jagged each loss is, means over lines", rows, ("loss", *NUMBERS.values()))


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def _settings(result: LandscapeResult) -> Table:
    settings, setting = result.landscape, result.setting
    labels = labels_of(result).axis_labels
    facts = {
        "kind": settings.kind,
        "axes": "; ".join(labels),
        "grid": f"{settings.num_points} points an axis, from {settings.low:g} to {settings.high:g}",
        "images": f"{result.num_images} {settings.images} images",
        "scales that move": f"{result.moving_scales:,}, of {', '.join(result.moving_sites)}",
        "blocks that move": ", ".join(map(str, settings.blocks)) or "all",
        "reflected at zero": f"{100 * result.reflected_share:.1f} % of the scales that move, at the corners",
        "losses left out, for lack of labels": ", ".join(map(loss_title, result.left_out)) or "none",
        "calibration": ", ".join(setting.chain) or "not recorded",
        "seed": str(setting.seed),
    }
    if result.cosine_of_axes is not None:
        facts["cosine of the axes"] = f"{result.cosine_of_axes:.3f}"
    return Table("Settings", list(facts.items()))
