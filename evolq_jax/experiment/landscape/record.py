"""A scan's files: finished points (`points.jsonl`) as they come, then `landscape.npz`, `landscape.json`."""

import io
import json
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from evolq_jax.config import Experiment
from evolq_jax.errors import UserError
from evolq_jax.experiment.run_directory import CONFIG, RunDirectory, new_run

POINTS, ARRAYS, SUMMARY = "points.jsonl", "landscape.npz", "landscape.json"


@contextmanager
def open_scan(path: str | Path | None, config: Experiment) -> Generator[RunDirectory, None, None]:
    """A new directory, or the one of an unfinished scan of the same config, to be continued.

    Raises:
      UserError: there is something else at that path, or it cannot be written.
    """
    if path is None or not _is_scan(Path(path)):
        with new_run(path, config) as run:
            yield run
        return
    run = RunDirectory(Path(path))
    if run.has(SUMMARY):
        raise UserError(f"'{path}' holds a finished landscape; name another with --run-dir")
    if run.config() != config:
        raise UserError(
            f"'{path}' holds an unfinished landscape of another config: give it the same to continue, or "
            "name another with --run-dir"
        )
    yield run


def _is_scan(path: Path) -> bool:
    """Whether a scan was begun there; one that was killed before its first point left a config only."""
    files = {file.name for file in path.iterdir()} if path.is_dir() else set[str]()
    return POINTS in files or files == {CONFIG}


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
        _check_header(run, _parsed(lines[0]), header)
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


def _check_header(run: RunDirectory, found: Any, header: Mapping[str, Any]) -> None:
    then = found if isinstance(found, dict) else {}
    changed = [name for name, value in header.items() if then.get(name) != value]
    if changed:
        raise UserError(
            f"the landscape in '{run.path}' cannot be continued, since this has changed: "
            f"{', '.join(changed)}; name another with --run-dir"
        )


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
