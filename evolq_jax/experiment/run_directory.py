"""A run's files: `config.json`, `log.jsonl`, scales, `result.json`. Whole or not there."""

import json
import os
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from evolq_jax.config import Experiment
from evolq_jax.errors import UserError
from evolq_jax.experiment.config_json import from_json, to_json
from evolq_jax.typing import QParams, Scales

CONFIG, LOG, RESULT = "config.json", "log.jsonl", "result.json"
INIT_SCALES, FINAL_SCALES = "init_scales.safetensors", "scales.safetensors"
PARAMS = "params.safetensors"  # where calibration changed them


class RunDirectory:
    """One run's directory, which exists."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def has(self, name: str) -> bool:
        """Whether there is such a file."""
        return (self.path / name).is_file()

    def read(self, name: str) -> str:
        """The text of one file.

        Raises:
          UserError: it cannot be read.
        """
        try:
            return (self.path / name).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"cannot read '{self.path / name}': {error}") from error

    def config(self) -> Experiment:
        """The run's config."""
        return from_json(self.read(CONFIG), str(self.path / CONFIG))

    def write(self, name: str, content: bytes) -> None:
        """One file, in one step.

        Raises:
          UserError: the disk is full or the directory cannot be written.
        """
        temporary = self.path / f".{name}.{os.getpid()}"
        with _reported(self.path / name):
            try:
                temporary.write_bytes(content)
                os.replace(temporary, self.path / name)
            finally:
                temporary.unlink(missing_ok=True)

    def append(self, name: str, content: bytes) -> None:
        """Puts something at the end of a file, at once on disk.

        Raises:
          UserError: the disk is full or the directory cannot be written.
        """
        with _reported(self.path / name), (self.path / name).open("ab") as file:
            file.write(content)

    def write_json(self, name: str, content: Any) -> None:
        """One JSON file, in one step."""
        self.write(name, (json.dumps(content, indent=2) + "\n").encode())

    @contextmanager
    def open_log(self) -> Generator[Callable[[dict[str, Any]], None], None, None]:
        """Gives a function that appends one line, at once on disk, to the run's log."""
        file = self.path / LOG
        with _reported(file):
            log = file.open("w", encoding="utf-8")

        def append(record: dict[str, Any]) -> None:
            with _reported(file):
                log.write(json.dumps(record) + "\n")
                log.flush()

        try:
            yield append
        finally:
            with _reported(file):
                log.close()

    def write_arrays(self, name: str, arrays: Mapping[str, Any]) -> None:
        """Arrays as `.safetensors`, float32."""
        self.write(
            name, save({k: np.ascontiguousarray(np.asarray(v, np.float32)) for k, v in arrays.items()})
        )

    def read_arrays(self, name: str) -> dict[str, np.ndarray]:
        """Arrays written by `write_arrays`.

        Raises:
          UserError: the file is missing or damaged.
        """
        try:
            return load_file(self.path / name)
        except (OSError, SafetensorError) as error:
            raise UserError(f"no readable arrays in '{self.path / name}' ({error}); run it again") from error

    def write_scales(self, name: str, scales: Scales) -> None:
        """Scales as `.safetensors`: `SITE.scale` and `SITE.zero_point`."""
        fields = ((site, qparams._asdict()) for site, qparams in scales.items())
        self.write_arrays(name, {f"{site}.{field}": v for site, part in fields for field, v in part.items()})

    def read_scales(self, name: str) -> Scales:
        """Scales written by `write_scales`.

        Raises:
          UserError: the file is missing or damaged.
        """
        arrays = self.read_arrays(name)
        sites = sorted({key.rpartition(".")[0] for key in arrays})
        try:
            return {
                site: QParams(jnp.asarray(arrays[f"{site}.scale"]), jnp.asarray(arrays[f"{site}.zero_point"]))
                for site in sites
            }
        except KeyError as error:
            raise UserError(f"'{self.path / name}' lacks {error}; run it again") from error


def open_run(path: str | Path) -> RunDirectory:
    """An existing run.

    Raises:
      UserError: there is none.
    """
    run = RunDirectory(Path(path))
    if not run.has(CONFIG):
        raise UserError(f"'{path}' is no run directory: it holds no {CONFIG}")
    return run


@contextmanager
def new_run(path: str | Path | None, config: Experiment) -> Generator[RunDirectory, None, None]:
    """A new directory with the config in it; without a path the next free `runs/NAME-NNN`.

    If it is left by an exception before anything but the config was written, nothing remains of it.

    Raises:
      UserError: there is something at that path already, or it cannot be written.
    """
    target = Path(path) if path is not None else _next_free(Path("runs"), config.name)
    with _reported(target, "; name another with --run-dir"):
        missing = [folder for folder in (target, *target.parents) if not folder.exists()]
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise UserError(f"run directory '{target}' is not empty; name another with --run-dir")
        target.mkdir(parents=True, exist_ok=path is not None)
    run = RunDirectory(target)
    try:
        run.write(CONFIG, to_json(config).encode())
        yield run
    except BaseException:
        _remove_empty(target, missing)
        raise


def _remove_empty(target: Path, created: list[Path]) -> None:
    """Takes away a directory that holds a config and nothing else, and the folders made for it."""
    if {file.name for file in target.iterdir()} <= {CONFIG}:
        (target / CONFIG).unlink(missing_ok=True)
        for folder in created:  # innermost first
            if any(folder.iterdir()):
                break
            folder.rmdir()


def _next_free(folder: Path, name: str) -> Path:
    number = 1
    while (folder / f"{name}-{number:03}").exists():
        number += 1
    return folder / f"{name}-{number:03}"


@contextmanager
def _reported(path: Path, remedy: str = "") -> Generator[None, None, None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write '{path}': {error.strerror or error}{remedy}") from error
