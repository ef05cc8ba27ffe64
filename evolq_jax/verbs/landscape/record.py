"""The numbers of a scan: `points.jsonl` while it runs, `landscape.npz` at its end."""

import io
import json
import math
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from evolq_jax.errors import UserError
from evolq_jax.json_text import parse_json, parse_object
from evolq_jax.runs.directory import CONFIG, LANDSCAPE, RunDirectory
from evolq_jax.runs.provenance import Provenance
from evolq_jax.runs.results.landscape import LandscapeMetadata
from evolq_jax.runs.results.older import in_todays_form
from evolq_jax.runs.typed_json import from_plain, to_plain
from evolq_jax.runs.unfinished import VerbFiles, check_unchanged

POINTS, ARRAYS = "points.jsonl", "landscape.npz"


def _is_begun(names: set[str]) -> bool:
    """Whether these are the files of a scan. Killed before its first point, it has left only a config."""
    return POINTS in names or names == {CONFIG}


SCAN = VerbFiles("landscape", LANDSCAPE, _is_begun, suffix="-landscape")


class PointLog:
    """The losses of finished points: a header, then one line for each batch. Each line is on disk at once.

    A kill leaves whole lines, and perhaps a part of one, which a continued scan drops. JSON keeps floats bit
    for bit. Floats that are not finite become texts.
    """

    def __init__(self, run: RunDirectory, header: Provenance, num_columns: int) -> None:
        """Reads the points that are there.

        Raises:
          UserError: they were computed from other inputs, or on another machine.
        """
        self._run = run
        self._rows: list[list[float]] = []
        first = _line(to_plain(header))
        if not run.has(POINTS):
            run.write(POINTS, first)
            return
        lines = run.read(POINTS).splitlines(keepends=True)
        if _parsed(lines[0] if lines else "") is None:
            lines = [first.decode()]
        check_unchanged(run, SCAN.verb, _provenance(run, _parsed(lines[0])), header)
        whole = 1
        for line in lines[1:]:
            rows = _parsed(line)
            if not isinstance(rows, list) or any(len(row) != num_columns for row in rows):
                break
            self._rows += [list(map(float, row)) for row in rows]
            whole += 1
        run.write(POINTS, "".join(lines[:whole]).encode())

    @property
    def done(self) -> int:
        """The number of finished points."""
        return len(self._rows)

    def append(self, losses: np.ndarray) -> None:
        """Appends the losses [points, columns] of the next batch."""
        rows = losses.tolist()
        self._run.append(POINTS, _line([[x if math.isfinite(x) else str(x) for x in row] for row in rows]))
        self._rows += rows

    def losses(self) -> np.ndarray:
        """The losses of all finished points: float32 [points, columns]."""
        return np.asarray(self._rows, np.float32)


def _line(content: Any) -> bytes:
    return (json.dumps(content, allow_nan=False) + "\n").encode()


def _provenance(run: RunDirectory, header: Any) -> Provenance:
    where = f"'{run.path / POINTS}'"
    try:
        return from_plain(header, Provenance, where, "scan's points")
    except UserError as error:
        raise UserError(f"{error}; name another directory with --run-dir") from error


def _parsed(line: str) -> Any:
    """The content of a line. None: the line is cut off or damaged."""
    if not line.endswith("\n"):
        return None
    try:
        return parse_json(line, POINTS)
    except UserError:
        return None


def write_arrays(run: RunDirectory, arrays: Mapping[str, np.ndarray], metadata: LandscapeMetadata) -> None:
    """Writes `landscape.npz`: arrays, and the metadata as a JSON string. `numpy.load(path)` reads it."""
    buffer = io.BytesIO()
    text = np.array(json.dumps(to_plain(metadata), allow_nan=False))
    np.savez(buffer, allow_pickle=False, **dict(arrays), metadata=text)
    run.write(ARRAYS, buffer.getvalue())


class Landscape(NamedTuple):
    """A finished scan: `arrays, metadata = read_landscape(run_dir)`."""

    arrays: dict[str, np.ndarray]  # by name, as docs/landscapes.md lists them
    metadata: LandscapeMetadata


def read_landscape(run_dir: str | Path) -> Landscape:
    """The arrays of a finished scan by name, and its metadata.

    Raises:
      UserError: there is no scan, or it cannot be read.
    """
    path = Path(run_dir) / ARRAYS
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        content = parse_object(str(arrays.pop("metadata")), f"'{path}'")
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"no readable landscape in '{path}' ({error}); run it again") from error
    metadata = from_plain(in_todays_form(content, path), LandscapeMetadata, f"'{path}'", "scan's metadata")
    return Landscape(arrays, metadata)
