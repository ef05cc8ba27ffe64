"""Labels of chosen images. They are kept on disk if reading them means reading every record."""

import hashlib
import json
import logging
from pathlib import Path

import numpy as np

from evolq_jax.data.cache import ELSEWHERE
from evolq_jax.data.source import Source
from evolq_jax.errors import UserError
from evolq_jax.paths import atomic

_log = logging.getLogger(__name__)


def read_labels(source: Source, rows: np.ndarray, cache_dir: Path | None) -> np.ndarray | None:
    """Labels int32 [b] of the images `rows` [b] of a source. None: the source has no labels.

    Raises:
        UserError: a label cannot be read, or `cache_dir` cannot be written.
    """
    if source.labels is None:
        return None
    if cache_dir is None or not source.slow_labels:
        return source.labels(rows)
    digest = hashlib.sha256()
    for row in rows:  # one by one: a balanced draw asks for all of a training set
        digest.update(json.dumps(source.stamp(int(row))).encode())
    path = cache_dir / f"labels-{digest.hexdigest()[:32]}.npy"
    found = _load(path, len(rows))
    if found is None:
        found = source.labels(rows)
        _save(path, found)
    return found


def _load(path: Path, count: int) -> np.ndarray | None:
    try:
        labels = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, EOFError) as error:
        _log.warning("kept labels %s are damaged (%s): reading again", path, error)
        return None
    return labels if labels.shape == (count,) and labels.dtype == np.int32 else None


def _save(path: Path, labels: np.ndarray) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic(path) as file:
            np.save(file, labels, allow_pickle=False)
    except OSError as error:
        raise UserError(
            f"cannot write the image cache in {path.parent}: {error.strerror or error}; {ELSEWHERE}"
        ) from error
