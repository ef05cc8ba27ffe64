"""Compiles programs before they are called: several at the same time, while the main thread does other work.

XLA compiles without Python's lock. JAX keeps what it has compiled for the shapes of a call, so a call finds
its program there, or waits for it if it is being compiled.
"""

import os
import threading
from collections.abc import Callable
from typing import Any

import jax
from jax.stages import Lowered

_PRECISION = "jax_default_matmul_precision"  # JAX has no types for its settings
# One core goes on with Python. XLA takes more than one for a large program.
_at_once = threading.Semaphore(max((os.cpu_count() or 1) - 1, 1))
_threads: list[threading.Thread] = []
_wanted = threading.Event()  # whether what waits is still to be compiled
_wanted.set()


def compile_ahead(*programs: Callable[[], Lowered]) -> None:
    """Compiles in threads what each function lowers: `partial(program.lower, ...)`.

    The arguments must be those of the later call, or `shapes_of` them. What fails here fails again when it is
    called, and is told then. A program that is never called was compiled for nothing.
    """
    precision: str | None = getattr(jax.config, _PRECISION)  # of this thread alone
    _threads[:] = [thread for thread in _threads if thread.is_alive()]
    for lower in programs:
        thread = threading.Thread(target=_compile, args=(lower, precision))
        _threads.append(thread)
        thread.start()


def abandon() -> None:
    """Waits for what is being compiled ahead, and compiles no more of it. For the end of a program."""
    _wanted.clear()
    try:
        for thread in _threads:
            thread.join()
    finally:
        _wanted.set()
        _threads.clear()


def shapes_of(tree: Any) -> Any:
    """Shapes and types of a tree's arrays, which stand for the arrays of one device."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), tree)


def _compile(lower: Callable[[], Lowered], precision: str | None) -> None:
    with _at_once:
        if not (_wanted.is_set() and threading.main_thread().is_alive()):
            return
        try:
            with jax.default_matmul_precision(precision):
                lower().compile()
        except Exception:  # the main thread meets it too
            return
