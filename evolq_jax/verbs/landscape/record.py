"""A scan's files: finished points (`points.jsonl`) as they come, then `landscape.npz`, `landscape.json`."""

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from evolq_jax.errors import UserError
from evolq_jax.runs.directory import CONFIG, RunDirectory
from evolq_jax.runs.unfinished import VerbFiles, check_unchanged

POINTS, ARRAYS, SUMMARY = "points.jsonl", "landscape.npz", "landscape.json"


def _is_begun(names: set[str]) -> bool:
    """Whether these are a scan's; one that was killed before its first point left a config only."""
    return POINTS in names or names == {CONFIG}


SCAN = VerbFiles("landscape", SUMMARY, _is_begun)


class PointLog:
    """Losses of finished points: a header that says of what, then a line a batch, each at once on disk.

    A kill leaves whole lines and perhaps a part of one, which is dropped when the scan is continued.
    Floats survive JSON bit for bit.
    """

    def __init__(self, run: RunDirectory, header: Mapping[str, Any], num_columns: int) -> None:
        """Reads what there is.

        Raises:
          UserError: what there is was computed from other inputs, or on another machine.
        """
        self._run = run
        self._rows: list[list[float]] = []
        if not run.has(POINTS):
            run.write(POINTS, _line(header))
            return
        lines = run.read(POINTS).splitlines(keepends=True)
        if _parsed(lines[0] if lines else "") is None:
            lines = [_line(header).decode()]
        then = _parsed(lines[0])
        check_unchanged(run, SCAN.verb, then if isinstance(then, dict) else {}, header)
        whole = 1
        for line in lines[1:]:
            rows = _parsed(line)
            if not isinstance(rows, list) or any(len(row) != num_columns for row in rows):
                break
            self._rows += rows
            whole += 1
        run.write(POINTS, "".join(lines[:whole]).encode())

    @property
    def done(self) -> int:
        """Points finished."""
        return len(self._rows)

    def append(self, losses: np.ndarray) -> None:
        """The losses [points, columns] of the next batch."""
        rows = losses.tolist()
        self._run.append(POINTS, _line(rows))
        self._rows += rows

    def losses(self) -> np.ndarray:
        """Of all finished points: float32 [points, columns]."""
        return np.asarray(self._rows, np.float32)


def _line(content: Any) -> bytes:
    return (json.dumps(content) + "\n").encode()


def _parsed(line: str) -> Any:
    """What a line holds; None where it is cut off or damaged."""
    if not line.endswith("\n"):
        return None
    try:
        return json.loads(line)
    except json.JSONDecodeError:
        return None


def write_arrays(run: RunDirectory, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, Any]) -> None:
    """`landscape.npz`, read with `numpy.load(path)`: arrays, and the metadata as a JSON string."""
    buffer = io.BytesIO()
    text = np.array(json.dumps(metadata))
    np.savez(buffer, allow_pickle=False, **dict(arrays), metadata=text)
    run.write(ARRAYS, buffer.getvalue())


def read_landscape(run_dir: str | Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays of a finished scan by name, and its metadata.

    Raises:
      UserError: there is none, or it cannot be read.
    """
    path = Path(run_dir) / ARRAYS
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        return arrays, json.loads(str(arrays.pop("metadata")))
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"no readable landscape in '{path}' ({error}); run it again") from error
