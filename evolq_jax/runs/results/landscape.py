"""What a scan of the loss found: the result of `landscape`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from evolq_jax.landscape.config import LandscapeConfig
from evolq_jax.landscape.jaggedness import Jaggedness
from evolq_jax.runs.provenance import Provenance
from evolq_jax.runs.results.common import Setting


@dataclass(frozen=True, kw_only=True)
class LandscapeMetadata:
    """All that a figure's caption needs; the same for a scan and its continuation. `landscape.npz` holds it.

    Attributes:
      target: the run's directory, or the config's name.
      setting: the network and its quantizers.
      landscape: the scan's settings, its own kind (line, plane, layers) among them.
      axes: the direction of each axis.
      axis_labels: what coordinate 1 of each axis means.
      columns: the losses, in the order of the arrays.
      units: of the columns.
      left_out: losses that need labels, where the images have none.
      num_images: scored at every point.
      moving_sites: the sites whose scales move.
      moving_scales: numbers in all these.
      direction_norms: Euclidean norms of the directions.
      cosine_of_axes: between a plane's axes; None: no plane.
      principal_shares: of the variance among results, of each principal direction.
      reflected_share: of the scales at the scan's corners, those that would be negative and were reflected.
      provenance: what the numbers depend on beside the config.
    """

    kind: Literal["landscape"] = "landscape"
    target: str
    setting: Setting
    landscape: LandscapeConfig
    axes: tuple[str, ...]
    axis_labels: tuple[str, ...]
    columns: tuple[str, ...]
    units: tuple[str, ...]
    left_out: tuple[str, ...]
    num_images: int
    moving_sites: tuple[str, ...]
    moving_scales: int
    direction_norms: tuple[float, ...]
    cosine_of_axes: float | None
    principal_shares: tuple[float, ...]
    reflected_share: float
    provenance: Provenance


@dataclass(frozen=True, kw_only=True)
class LandscapeResult(LandscapeMetadata):
    """What `run_landscape` found; `landscape.json` holds it.

    Attributes:
      run_dir: where everything is; not in the file.
      jaggedness: of every column.
      seconds: of this process.
    """

    run_dir: Path
    jaggedness: dict[str, Jaggedness]
    seconds: float
