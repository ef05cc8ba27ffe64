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


def compile_ahead(*programs: Callable[[], Lowered]) -> None:
    """Compiles in threads what each function lowers: `partial(program.lower, ...)`.

    The arguments must be those of the later call, or `shapes_of` them. What fails here fails again when it is
    called, and is told then. A program that is never called was compiled for nothing.
    """
    precision: str | None = getattr(jax.config, _PRECISION)  # of this thread alone
    if os.environ.get("EVOLQ_W") == "0":
        return
    for lower in programs:
        threading.Thread(target=_compile, args=(lower, precision), name="compile ahead").start()


def shapes_of(tree: Any) -> Any:
    """Shapes and types of a tree's arrays, which stand for the arrays of one device."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), tree)


def _compile(lower: Callable[[], Lowered], precision: str | None) -> None:
    with _at_once:
        if not threading.main_thread().is_alive():  # the process ends
            return
        try:
            with jax.default_matmul_precision(precision):
                lower().compile()
        except Exception:  # the main thread meets it too
            return
