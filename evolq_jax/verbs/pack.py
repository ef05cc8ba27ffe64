"""The verb `pack`: packs a folder of images into a data set."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from evolq_jax.data import pack_folder
from evolq_jax.paths import user_path
from evolq_jax.pipeline.watcher import Silent, Watcher


@dataclass(frozen=True, kw_only=True)
class PackResult:
    """The data set that was written.

    Attributes:
      num_images: the number of images in it.
      num_shards: the number of files that hold them.
      kept_shards: how many of these files an earlier, interrupted start had finished.
      source: the data set's name in a config.
      seconds: how long packing took.
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
    """Packs a folder of images into array_record files. A config names this data set as `tfds:OUT`.

    Args:
      folder: the images, as `<class>/<file>` or without classes.
      out: the data set's folder, empty or missing. Packing that was killed goes on.
      class_index: a file with one class id a line, in index order; None: the data set has no labels.
      watcher: told of the progress.

    Raises:
      UserError: tensorflow-datasets is missing, an image cannot be read, or `out` cannot be written.
    """
    began = time.monotonic()
    index = None if class_index is None else user_path(class_index, "--class-index")
    progress = (watcher or Silent()).stage("packing images")
    packed = pack_folder(user_path(folder, "FOLDER"), user_path(out, "--out"), index, progress)
    return PackResult(**packed._asdict(), source=f"tfds:{out}", seconds=round(time.monotonic() - began, 2))
