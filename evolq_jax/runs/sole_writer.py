"""Orbax checkpoints with one writer: the first process saves, and the others get what it reads.

What is saved is small and the same in all processes. So no shared file system is needed.
"""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from evolq_jax.devices import hosts


class _Step(NamedTuple):
    step: int


class SoleCheckpointer:
    """A checkpointer that only one process runs. Orbax's `Checkpointer` always needs all processes.

    Orbax's older manager does not, so this class uses it.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        """Removes what a killed process left half written."""
        import orbax.checkpoint as ocp  # here, since it takes 0.3 s: programs compile meanwhile

        folder.mkdir(exist_ok=True)
        alone = ocp.options.MultiprocessingOptions(
            primary_host=0, active_processes={0}, barrier_sync_key_prefix="first"
        )
        options = ocp.CheckpointManagerOptions(
            create=False, max_to_keep=keep, cleanup_tmp_directories=True, multiprocessing_options=alone
        )
        self._manager, self._args = ocp.CheckpointManager(folder.absolute(), options=options), ocp.args

    @property
    def latest(self) -> _Step | None:
        """The last complete checkpoint."""
        step = self._manager.latest_step()
        return None if step is None else _Step(step)

    def load(self, step: int, like: Any) -> Any:
        """A checkpoint's tree, in the form of another tree."""
        return self._manager.restore(step, args=self._args.StandardRestore(like))

    def save_async(self, step: int, tree: Any, *, force: bool) -> None:
        """Saves a tree in the background."""
        self._manager.save(step, args=self._args.StandardSave(tree), force=force)

    def close(self) -> None:
        """Waits for what is being written."""
        self._manager.wait_until_finished()
        self._manager.close()


def tree_from_first(read: Callable[[], Any], like: Any) -> Any:
    """Gives all processes the tree (or None) that the first one reads: numpy arrays and numbers.

    Args:
      read: only the first process calls it.
      like: a tree with the same nodes and kinds of leaves.
    """
    if hosts.num_processes() == 1:
        return read()

    def make() -> bytes:
        found, file = read(), io.BytesIO()
        np.savez(file, *jax.tree.leaves(found))  # whole numbers and float64 keep all their digits
        return file.getvalue()

    with np.load(io.BytesIO(hosts.from_first(make)), allow_pickle=False) as arrays:
        leaves = [arrays[name] for name in arrays.files]
    if not leaves:
        return None
    kinds, nodes = jax.tree.flatten(like)
    typed = [
        leaf if isinstance(kind, np.ndarray) else type(kind)(leaf)
        for kind, leaf in zip(kinds, leaves, strict=True)
    ]
    return jax.tree.unflatten(nodes, typed)
