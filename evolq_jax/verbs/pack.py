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
    """Turns an image folder into a data set in array_record files, which `tfds:OUT` names in a config.

    Args:
      folder: of images, `<class>/<file>` or flat.
      out: the data set's folder, which must not hold anything; a start that was killed is continued.
      class_index: file with a class id a line in index order; None: the data set has no labels.
      watcher: told how it goes on.

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
