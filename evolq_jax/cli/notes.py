"""Shows what the library logs as plain lines on standard error."""

import logging
import sys
from collections.abc import Generator
from contextlib import contextmanager

from evolq_jax.devices import hosts
from evolq_jax.paths import printable


class _Lines(logging.Handler):
    """One line for each record. Bars may have taken standard error's place, so it is looked up each time."""

    def emit(self, record: logging.LogRecord) -> None:
        """Prints the record. Of several processes only the first does."""
        if hosts.is_first():
            print(f"evolq: note: {printable(record.getMessage())}", file=sys.stderr, flush=True)


@contextmanager
def notes_on_stderr() -> Generator[None, None, None]:
    """Meanwhile the library's warnings are lines for people, not records with a module's name."""
    logger, handler = logging.getLogger("evolq_jax"), _Lines(logging.WARNING)
    propagated, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagated
