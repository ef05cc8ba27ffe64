"""The verb `draw`: the pictures of finished scans again, on the same scales."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from evolq_jax.errors import UserError, suggestion
from evolq_jax.figures.picture import check_plotting
from evolq_jax.figures.style import Limits
from evolq_jax.landscape.pictures.draw import scales
from evolq_jax.runs.directory import hold_directory
from evolq_jax.runs.results.files import read_result
from evolq_jax.runs.results.landscape import LandscapeResult
from evolq_jax.verbs.landscape.pictures import labels_of, write_pictures
from evolq_jax.verbs.landscape.record import read_landscape


def draw_landscapes(run_dirs: Sequence[str | Path], limits: Mapping[str, Limits] | None = None) -> None:
    """Draws the pictures of finished scans again, so that a loss has the same limits in all of them.

    Args:
      run_dirs: the scans' directories, in which the pictures are replaced.
      limits: lowest and highest value by loss, such as `{"kl": (0.0, 0.5)}`. Other losses have those that
        hold the values of all scans. `roughness of kl` are those of the second panel of layers.

    Raises:
      UserError: matplotlib is missing, a directory holds no finished scan or cannot be written, or limits
        are those of no loss or not in order.
    """
    check_plotting()
    found = [(read_result(path, LandscapeResult), read_landscape(path)) for path in run_dirs]
    shared = dict[str, Limits]()
    for result, scan in found:
        for name, (low, high) in scales(scan.arrays, labels_of(result)).items():
            before = shared.get(name, (low, high))
            shared[name] = min(low, before[0]), max(high, before[1])
    for name, (low, high) in (limits or {}).items():
        if name not in shared:
            raise UserError(
                f"no scan has the loss '{name}'{suggestion(name, shared)} (there are: {', '.join(shared)})"
            )
        if not low < high:
            raise UserError(f"the limits of '{name}' are {low:g} and {high:g}: give the lower one first")
    for path, (result, scan) in zip(run_dirs, found, strict=True):
        with hold_directory(path, "") as run:
            write_pictures(run, scan.arrays, result, {**shared, **(limits or {})})
