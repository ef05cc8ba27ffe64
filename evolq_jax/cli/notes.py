"""Shows what the library logs as plain lines on standard error."""

import logging
import sys
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from evolq_jax.devices import hosts
from evolq_jax.devices.compile_cache import mend
from evolq_jax.notes import say_once
from evolq_jax.paths import printable


class _Lines(logging.Handler):
    """One line for each record. Bars may have taken standard error's place, so it is looked up each time."""

    def emit(self, record: logging.LogRecord) -> None:
        """Prints the record. Of several processes only the first does."""
        if hosts.is_first():
            print(f"evolq: note: {printable(record.getMessage())}", file=sys.stderr, flush=True)


@contextmanager
def notes_on_stderr() -> Generator[None, None, None]:
    """Meanwhile the library's warnings are lines for people, not records with a module's name.

    So are JAX's about compiled programs that it cannot read or write. Of these each kind is one line.
    """
    logger, handler = logging.getLogger("evolq_jax"), _Lines(logging.WARNING)
    propagated, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    shown, warnings.showwarning = warnings.showwarning, _show_warning
    try:
        yield
    finally:
        warnings.showwarning = shown
        logger.removeHandler(handler)
        logger.propagate = propagated


def _show_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, *rest: Any
) -> None:
    """In the place of `warnings.showwarning`, which is called so."""
    note = mend(str(message))
    if note:
        say_once(note)
    else:
        sys.stderr.write(warnings.formatwarning(message, category, filename, lineno))
