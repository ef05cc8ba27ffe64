"""The verb that packs an image folder."""

import time
from pathlib import Path
from typing import Any

from evolq_jax.data import pack_folder
from evolq_jax.pipeline.watcher import Silent, Watcher


def run_pack(
    folder: str | Path,
    out: str | Path,
    class_index: str | Path | None = None,
    watcher: Watcher | None = None,
) -> dict[str, Any]:
    """Packs an image folder into array_record files. A config names this data set as `tfds:OUT`.

    Args:
      folder: the images, `<class>/<file>` or flat.
      out: the data set's folder; it must be empty or missing. A start that was killed is continued.
      class_index: file with one class id per line, in index order; None: the data set has no labels.
      watcher: follows the progress.

    Returns:
      What was written.

    Raises:
      UserError: tensorflow-datasets is missing, an image cannot be read, or `out` cannot be written.
    """
    began = time.monotonic()
    index = None if class_index is None else Path(class_index).expanduser()
    progress = (watcher or Silent()).stage("packing images")
    packed = pack_folder(Path(folder).expanduser(), Path(out).expanduser(), index, progress)
    return packed._asdict() | {"source": f"tfds:{out}", "seconds": round(time.monotonic() - began, 2)}
