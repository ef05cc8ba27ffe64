"""The result of `landscape`: a scan of the loss."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from evolq_jax.landscape.config import LandscapeConfig
from evolq_jax.landscape.jaggedness import Jaggedness
from evolq_jax.runs.provenance import Provenance
from evolq_jax.runs.results.common import Setting


@dataclass(frozen=True, kw_only=True)
class LandscapeMetadata:
    """Everything that a figure's caption needs. A continued scan has the same. `landscape.npz` holds it.

    Attributes:
      target: the run's directory, or the config's name.
      setting: the network and its quantizers.
      landscape: the scan's settings, with its own kind (line, plane, layers).
      axes: the direction of each axis.
      axis_labels: what coordinate 1 of each axis means.
      columns: the losses, in the order of the arrays.
      units: the units of the columns.
      left_out: losses that were left out, because they need labels and the images have none.
      num_images: the number of images that are scored at every point.
      moving_sites: the sites whose scales move.
      moving_scales: the number of scales that move.
      direction_norms: Euclidean norms of the directions.
      cosine_of_axes: the cosine between a plane's axes; None: no plane.
      principal_shares: the share of each principal direction in the variance among results.
      reflected_share: the share of scales at the scan's corners that would be negative and were reflected.
      provenance: what the numbers depend on, beside the config.
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
    """The result of `run_landscape`. `landscape.json` holds it.

    Attributes:
      run_dir: the directory; it is not in the file.
      jaggedness: the jaggedness of every column.
      seconds: the seconds of this process.
    """

    run_dir: Path
    jaggedness: dict[str, Jaggedness]
    seconds: float
