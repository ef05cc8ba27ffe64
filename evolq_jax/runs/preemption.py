"""SIGTERM: schedulers send it before they take a machine away. The run saves first, then stops.

Several processes stop at the same place of the search, whichever of them gets the signal. Before and after
the search they only remember the signal; a scheduler that loses patience then kills them.
"""

import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType

from evolq_jax.devices import hosts
from evolq_jax.interrupt import remedy

STATUS = 75  # of the process: EX_TEMPFAIL, try again; a process that SIGTERM killed outright gives 143


class Preempted(BaseException):
    """SIGTERM came. The message says how to go on. Like KeyboardInterrupt, this is not an `Exception`."""


class Preemption:
    """Raises `Preempted` when SIGTERM comes: at once or, while deferred, at the next `check`."""

    def __init__(self) -> None:
        self._asked = self._deferred = False

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        """The signal's handler."""
        del number, frame
        self._asked = True
        if not self._deferred:
            self.check()

    def check(self) -> None:
        """Raises `Preempted` if SIGTERM has come."""
        if self._asked:
            raise Preempted(f"stopped by SIGTERM{remedy()}")

    @contextmanager
    def deferred(self) -> Generator[None, None, None]:
        """A context that SIGTERM does not interrupt. It calls `check` when it ends without an error."""
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False
        self.check()


class _Agreed(Preemption):
    """For several processes: all of them call `check` together, and it raises in all or in none."""

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        """The signal's handler."""
        del number, frame
        self._asked = True

    def check(self) -> None:
        """Raises `Preempted` if SIGTERM has come to one of the processes."""
        self._asked = hosts.anywhere(self._asked)
        super().check()


@contextmanager
def preemptible() -> Generator[Preemption, None, None]:
    """A context that handles SIGTERM. Only the main thread can; in other threads nothing changes.

    The message ends with the remedy of the enclosing `going_on`.
    """
    preemption = Preemption() if hosts.num_processes() == 1 else _Agreed()
    if threading.current_thread() is not threading.main_thread():
        yield preemption
        return
    before = signal.signal(signal.SIGTERM, preemption.on_signal)
    try:
        yield preemption
    finally:
        signal.signal(signal.SIGTERM, before)
