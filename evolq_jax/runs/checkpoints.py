"""Checkpoints of a search or a descent (Orbax): where it stood, for another process to go on."""

import logging
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from evolq_jax.config.experiment import CheckpointConfig
from evolq_jax.devices import hosts
from evolq_jax.errors import UserError
from evolq_jax.interrupt import remedy
from evolq_jax.runs.sole_writer import SoleCheckpointer, tree_from_first

CHECKPOINTS = "checkpoints"


class State(Protocol):
    """A tree of arrays and numbers: where a search or a descent stands."""

    @property
    def number(self) -> int:
        """Grows from each state to the next."""
        ...


class Saved(NamedTuple):
    """What a checkpoint holds."""

    state: Any  # a `State`
    log_lines: int  # of `log.jsonl`, up to this state
    seconds: float  # of the whole run so far, over all attempts


class Checkpoints:
    """The checkpoints of one run. Each is written whole or not at all. The last few are kept.

    They are written in the background; only the copy of the arrays to the host is waited for. So an error in
    writing is raised by the next checkpoint, or by `close`.
    """

    def __init__(self, run: Path, settings: CheckpointConfig) -> None:
        """Reads the checkpoints, and removes what a killed process left half written."""
        self._run, self._every = run, settings.every_seconds
        self._newest: Saved | None = None
        self._last_save = time.monotonic()
        self._checkpointer = None
        latest = None
        if hosts.is_first():  # the others neither read nor write
            with self._reported():
                self._checkpointer = _make_checkpointer(run / CHECKPOINTS, settings.keep)
                latest = self._checkpointer.latest
        self._saved = latest.step if latest else -1

    def latest(self, first: State) -> Saved | None:
        """The last complete checkpoint of the run that began at `first`. None: there is none.

        Raises:
          UserError: it cannot be read, or holds other scales.
        """
        begun = Saved(first, 0, 0.0)
        like = _on_host(begun)
        found = tree_from_first(lambda: self._load(like), like)
        return None if found is None else jax.tree.map(_on_device, begun, found)

    def _load(self, like: Any) -> Any:
        if self._checkpointer is None or self._saved < 0:
            return None
        try:
            return self._checkpointer.load(self._saved, like)
        except Exception as error:
            raise UserError(
                f"cannot read checkpoint {self._saved} of '{self._run}' ({_line(error)}): take the "
                f"directory '{self._run / CHECKPOINTS / str(self._saved)}' away to go on from the one "
                "before, or start anew"
            ) from error

    def offer(self, newest: Saved) -> None:
        """Saves it if the last one is old enough.

        Raises:
          UserError: this or the one before could not be written.
        """
        self._newest = newest
        if time.monotonic() - self._last_save >= self._every:
            self.flush()

    def flush(self) -> None:
        """Saves what was offered last, if it is not saved.

        Raises:
          UserError: this or the one before could not be written.
        """
        newest = self._newest
        if self._checkpointer is None or newest is None or newest.state.number == self._saved:
            return
        with self._reported():
            self._checkpointer.save_async(newest.state.number, _on_host(newest), force=True)
        self._saved, self._last_save = newest.state.number, time.monotonic()

    def close(self) -> None:
        """Waits for what is being written.

        Raises:
          UserError: it could not be written.
        """
        if self._checkpointer is not None:
            with self._reported():
                self._checkpointer.close()

    @contextmanager
    def _reported(self) -> Generator[None, None, None]:
        """Whatever goes wrong in Orbax and its storage: mostly a full disk, under many names."""
        try:
            yield
        except Exception as error:
            raise UserError(
                f"cannot write a checkpoint in '{self._run / CHECKPOINTS}' ({_line(error)}); the last "
                f"whole one is kept: mend it{remedy()}"
            ) from error


def _make_checkpointer(folder: Path, keep: int) -> Any:
    """Orbax's, for this process alone."""
    if hosts.num_processes() > 1:
        return SoleCheckpointer(folder, keep)
    from orbax.checkpoint import v1 as ocp  # here, since it takes 0.3 s: programs compile meanwhile

    last_few: Any = ocp.training.preservation_policies.LatestN(keep)
    return ocp.training.Checkpointer(
        str(folder.absolute()), preservation_policy=last_few, cleanup_tmp_directories=True
    )


@contextmanager
def open_checkpoints(run: Path, settings: CheckpointConfig) -> Generator[Checkpoints, None, None]:
    """The checkpoints of a verb's run; when they are left, even by a signal, what was offered last is saved.

    Raises:
      UserError: it could not be written.
    """
    with _quiet():
        yield from _closed(Checkpoints(run, settings))


def _closed(checkpoints: Checkpoints) -> Generator[Checkpoints, None, None]:
    try:
        yield checkpoints
    except Exception:  # the run has failed: no error of a checkpoint may hide that
        with suppress(UserError):
            checkpoints.close()
        raise
    except BaseException:
        checkpoints.flush()
        checkpoints.close()
        raise
    checkpoints.flush()
    checkpoints.close()


@contextmanager
def _quiet() -> Generator[None, None, None]:
    """Without Orbax's log: what goes wrong in its threads comes as an exception too."""
    log = logging.getLogger("absl")
    before = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(before)


def _on_host(saved: Saved) -> Any:
    """Numpy arrays in place of the device's, which Orbax gives back without asking for devices."""

    def on_host(leaf: Any) -> Any:
        leaf = jax.random.key_data(leaf) if _is_key(leaf) else leaf
        return np.asarray(leaf) if isinstance(leaf, jax.Array) else leaf

    return jax.tree.map(on_host, saved)


def _on_device(like: Any, found: Any) -> Any:
    """The inverse for one leaf."""
    if _is_key(like):
        return jax.random.wrap_key_data(jnp.asarray(found), impl=jax.random.key_impl(like))
    return jnp.asarray(found) if isinstance(found, np.ndarray) else found


def _is_key(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _line(error: Exception) -> str:
    """What an error says, shortened to a line."""
    text = " ".join(str(getattr(error, "strerror", None) or error or type(error).__name__).split())
    return text if len(text) <= 200 else text[:199] + "…"
