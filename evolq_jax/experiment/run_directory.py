"""A run's files: `config.json`, `log.jsonl`, scales, `result.json`. Whole or not there."""

import json
import os
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from evolq_jax.config import Experiment, from_json, to_json
from evolq_jax.errors import UserError
from evolq_jax.typing import QParams, Scales


class RunDirectory:
    """One run's directory."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, path: str | Path | None, config: Experiment) -> "RunDirectory":
        """A new directory with the config in it; without a path the next free `runs/NAME-NNN`.

        Raises:
          UserError: it holds something already, or cannot be written.
        """
        target = Path(path) if path is not None else _next_free(Path("runs"), config.name)
        try:
            if target.exists() and (not target.is_dir() or any(target.iterdir())):
                raise UserError(f"run directory '{target}' is not empty; name another with --run-dir")
            target.mkdir(parents=True, exist_ok=True)
            run = cls(target)
            run.write("config.json", to_json(config).encode())
        except OSError as error:
            raise UserError(
                f"cannot write run directory '{target}': {error.strerror}; name another with --run-dir"
            ) from error
        return run

    @classmethod
    def open(cls, path: str | Path) -> "RunDirectory":
        """An existing run.

        Raises:
          UserError: there is none.
        """
        if not (Path(path) / "config.json").is_file():
            raise UserError(f"'{path}' is no run directory (no config.json in it)")
        return cls(Path(path))

    def config(self) -> Experiment:
        """The run's config."""
        file = self.path / "config.json"
        return from_json(file.read_text(), str(file))

    def write(self, name: str, content: bytes) -> None:
        """One file, in one step."""
        temporary = self.path / f".{name}.{os.getpid()}"
        temporary.write_bytes(content)
        os.replace(temporary, self.path / name)

    def write_json(self, name: str, content: Any) -> None:
        """One JSON file, in one step."""
        self.write(name, (json.dumps(content, indent=2) + "\n").encode())

    def write_scales(self, name: str, scales: Scales) -> None:
        """Scales as `.safetensors`: `SITE.scale` and `SITE.zero_point`."""
        arrays = {
            f"{site}.{field}": np.ascontiguousarray(np.asarray(value, np.float32))
            for site, qparams in scales.items()
            for field, value in qparams._asdict().items()
        }
        self.write(name, save(arrays))

    def read_scales(self, name: str = "scales.safetensors") -> Scales:
        """Scales written by `write_scales`.

        Raises:
          UserError: the file is missing or damaged.
        """
        file = self.path / name
        try:
            arrays = load_file(file)
            sites = {key.rsplit(".", 1)[0] for key in arrays}
            return {
                site: QParams(jnp.asarray(arrays[f"{site}.scale"]), jnp.asarray(arrays[f"{site}.zero_point"]))
                for site in sites
            }
        except (OSError, SafetensorError, KeyError) as error:
            raise UserError(f"no readable scales in '{file}' ({error}); run the search again") from error


def is_run(path: str | Path) -> bool:
    """Whether this is a run's directory rather than a config file."""
    return Path(path).is_dir()


def _next_free(folder: Path, name: str) -> Path:
    number = 1
    while (folder / f"{name}-{number:03}").exists():
        number += 1
    return folder / f"{name}-{number:03}"
