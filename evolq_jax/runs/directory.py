"""A run's files: `config.json`, `log.jsonl`, scales, `result.json`. Whole or not there.

Of several processes only the first touches them: others get from it what they read, and write nothing.
"""

import errno
import json
import os
from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from evolq_jax.config.absolute import absolute
from evolq_jax.config.experiment import Experiment
from evolq_jax.devices import hosts
from evolq_jax.errors import UserError
from evolq_jax.paths import user_path
from evolq_jax.quant.qparams import QParams
from evolq_jax.quant.spec import Specs
from evolq_jax.runs.check_qparams import wrong_qparams
from evolq_jax.runs.config_json import from_json
from evolq_jax.runs.lock import LOCK, locked
from evolq_jax.runs.preemption import Preempted
from evolq_jax.runs.typed_json import to_json, to_plain

CONFIG, LOG = "config.json", "log.jsonl"
RESULT, LANDSCAPE, COMPARISON = "result.json", "landscape.json", "comparison.json"
# After the chain's first link, where it has more; after the chain; at the end.
RANGES_SCALES, INIT_SCALES, FINAL_SCALES = (
    "ranges_scales.safetensors",
    "init_scales.safetensors",
    "scales.safetensors",
)
INDEX, PICTURES = "index.html", "pictures"  # a page, and what it shows
PARAMS = "params.safetensors"  # where calibration changed them
PARTIAL = ".partial"  # the end of what is being written, or was when its process was killed


class RunDirectory:
    """One run's directory, which exists."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def has(self, name: str) -> bool:
        """Whether there is such a file.

        Raises:
          UserError: there is something of that name that is no plain file, or a link to nothing.
        """
        return hosts.from_first(lambda: b"1" if self._is_there(name) else b"") == b"1"

    def _is_there(self, name: str) -> bool:
        path = self.path / name
        if path.is_file():
            return True
        if os.path.lexists(path):
            raise UserError(f"'{path}' is no plain file: bring the run's own back, or run it again")
        return False

    def _content(self, name: str) -> bytes:
        """The bytes of a file. A pipe, on which reading would wait, is no file."""
        if not self._is_there(name):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self.path / name))
        return (self.path / name).read_bytes()

    def names(self) -> set[str]:
        """What lies in it, the lock aside."""
        names = hosts.from_first(lambda: json.dumps([file.name for file in self.path.iterdir()]).encode())
        return set(json.loads(names)) - {LOCK}

    def read(self, name: str) -> str:
        """The text of one file.

        Raises:
          UserError: it cannot be read.
        """
        try:
            return hosts.from_first(lambda: self._content(name)).decode()
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
        if not hosts.is_first():
            return
        temporary = self.path / f".{name}{PARTIAL}"
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
        if not hosts.is_first():
            return
        with _reported(self.path / name), (self.path / name).open("ab") as file:
            file.write(content)

    def folder(self, name: str) -> "RunDirectory":
        """A folder in it, made where there is none, for files that belong together.

        Raises:
          UserError: there is something else of that name, or it cannot be written.
        """
        inside = self.path / name
        if hosts.is_first():
            if inside.is_symlink():  # what is written would lie outside the run
                raise UserError(f"'{inside}' is a link: take it away")
            with _reported(inside):
                inside.mkdir(exist_ok=True)
                for left in inside.glob(f".*{PARTIAL}"):
                    left.unlink()
        return RunDirectory(inside)

    def write_json(self, name: str, content: Any) -> None:
        """One JSON file of a dataclass or of dictionaries and lists of them, in one step."""
        self.write(name, to_json(content).encode())

    @contextmanager
    def open_log(self, keep: int = 0) -> Generator[Callable[[Mapping[str, Any]], None], None, None]:
        """Gives a function that appends one line, at once on disk, to the run's log.

        Of the lines that are there, the first `keep` stay.
        """
        file = self.path / LOG if hosts.is_first() else Path(os.devnull)
        if keep:
            self.write(LOG, "".join(self.read(LOG).splitlines(keepends=True)[:keep]).encode())
        with _reported(file):
            log = file.open("a" if keep else "w", encoding="utf-8")

        def append(record: Mapping[str, Any]) -> None:
            with _reported(file):
                log.write(json.dumps(to_plain(record), allow_nan=False) + "\n")
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
            return load(hosts.from_first(lambda: self._content(name)))
        except (OSError, SafetensorError) as error:
            raise UserError(f"no readable arrays in '{self.path / name}' ({error}); run it again") from error

    def write_qparams(self, name: str, specs: Specs, qparams: QParams) -> None:
        """The quantizers' numbers as `.safetensors`.

        `SITE.bits` of every quantized site; `SITE.scale` and `SITE.zero_point` of those that have a scale.
        """
        table = dict(specs)
        self.write_arrays(
            name,
            {
                f"{site}.{field}": value
                for site, site_qparams in qparams.items()
                for field, value in site_qparams._asdict().items()
                if field == "bits" or table[site].has_scale
            },
        )

    def read_qparams(self, name: str, specs: Specs, blank: QParams) -> QParams:
        """Numbers written by `write_qparams`.

        Args:
          name: of the file.
          specs: the network's quantizers.
          blank: what the file's numbers are put into; its bits are those of a site of which the file names
            none, as those of older runs do.

        Raises:
          UserError: the file is missing or damaged, or has the numbers of other sites.
        """
        arrays, qparams = self.read_arrays(name), dict(blank)
        wrong = wrong_qparams(arrays, specs, blank)
        if wrong is not None:
            raise UserError(f"the scales in '{self.path / name}' do not fit the run's config: {wrong}")
        for key, value in arrays.items():
            site, _, field = key.rpartition(".")
            qparams[site] = qparams[site]._replace(**{field: jax.device_put(value)})
        return qparams


def open_run(path: str | Path) -> RunDirectory:
    """An existing run.

    Raises:
      UserError: there is none, or only a finished landscape, which has no scales of its own.
    """
    run = RunDirectory(user_path(path, "run directory"))
    if not run.has(CONFIG):
        raise UserError(f"'{path}' is no run directory: it holds no {CONFIG}")
    if run.has(LANDSCAPE):
        raise UserError(
            f"'{path}' holds a landscape, which has no network: give the run or the config that it scanned"
        )
    return run


@contextmanager
def hold_directory(path: str | Path | None, name: str) -> Generator[RunDirectory, None, None]:
    """A directory, made where there is none, that no other process gets meanwhile.

    If it is left by an exception when there is nothing in it, what was made is taken away.

    Raises:
      UserError: there is a file at that path, another process is at work there, or it cannot be written.
    """
    target = user_path(path, "--run-dir") if path is not None else _next_free(Path("runs"), name)
    if not hosts.is_first():
        yield RunDirectory(target)
        return
    with _reported(target, "; name another with --run-dir"):
        made = [folder for folder in (target, *target.parents) if not folder.exists()]
        if target.exists() and not target.is_dir():
            raise _not_empty(target)
        target.mkdir(parents=True, exist_ok=path is not None)
    try:
        with ExitStack() as stack:
            with _reported(target, "; name another with --run-dir"):
                stack.enter_context(locked(target))
                for left in target.glob(f".*{PARTIAL}"):
                    left.unlink()
            yield RunDirectory(target)
    except BaseException:
        for folder in made:  # innermost first
            if not folder.is_dir() or any(folder.iterdir()):
                break
            folder.rmdir()
        raise


@contextmanager
def begin_run(run: RunDirectory, config: Experiment) -> Generator[None, None, None]:
    """Puts the config into an empty directory, with absolute paths: it can be used from every folder.

    It is taken away again if an exception comes before anything else was written; not if the run was
    preempted, which is going to be continued.

    Raises:
      UserError: the directory is not empty, or cannot be written.
    """
    if run.names():
        raise _not_empty(run.path)
    run.write(CONFIG, to_json(absolute(config)).encode())
    try:
        yield
    except Preempted:
        raise
    except BaseException:
        if hosts.is_first() and {file.name for file in run.path.iterdir()} - {LOCK} == {CONFIG}:
            (run.path / CONFIG).unlink()
        raise


def _not_empty(path: Path) -> UserError:
    wrong = "is a file" if path.is_file() else "is not empty"
    return UserError(f"run directory '{path}' {wrong}; name another with --run-dir")


def _next_free(folder: Path, name: str) -> Path:
    def find() -> bytes:
        number = 1
        while (folder / f"{name}-{number:03}").exists():
            number += 1
        return f"{name}-{number:03}".encode()

    return folder / hosts.from_first(find).decode()


@contextmanager
def _reported(path: Path, remedy: str = "") -> Generator[None, None, None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write '{path}': {error.strerror or error}{remedy}") from error
