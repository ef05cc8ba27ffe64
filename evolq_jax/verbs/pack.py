"""The verb that packs an image folder."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from evolq_jax.data import pack_folder
from evolq_jax.pipeline.watcher import Silent, Watcher


@dataclass(frozen=True, kw_only=True)
class PackResult:
    """What was written.

    Attributes:
      num_images: in the data set.
      num_shards: files that hold them.
      kept_shards: files that an earlier, interrupted start had finished.
      source: what a config calls the data set.
      seconds: that it took.
    """

    kind: Literal["packing"] = "packing"
    num_images: int
    num_shards: int
    kept_shards: int
    source: str
    seconds: float


def run_pack(
    folder: str | Path,
    out: str | Path,
    class_index: str | Path | None = None,
    watcher: Watcher | None = None,
) -> PackResult:
    """Packs an image folder into array_record files. A config names this data set as `tfds:OUT`.

    Args:
      folder: the images, `<class>/<file>` or flat.
      out: the data set's folder; it must be empty or missing. A start that was killed is continued.
      class_index: file with one class id per line, in index order; None: the data set has no labels.
      watcher: follows the progress.

    Raises:
      UserError: tensorflow-datasets is missing, an image cannot be read, or `out` cannot be written.
    """
    began = time.monotonic()
    index = None if class_index is None else Path(class_index).expanduser()
    progress = (watcher or Silent()).stage("packing images")
    packed = pack_folder(Path(folder).expanduser(), Path(out).expanduser(), index, progress)
    return PackResult(**packed._asdict(), source=f"tfds:{out}", seconds=round(time.monotonic() - began, 2))
