"""SIGTERM, as schedulers send it before they take a machine away: what there is to save is saved first.

Several processes stop at the same place of the search, whichever of them gets the signal. Before and after
the search they only take note of it, and a scheduler that loses patience kills them.
"""

import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType

from evolq_jax.devices import hosts

STATUS = 75  # of the process: EX_TEMPFAIL, try again; a process that SIGTERM killed outright gives 143


class Preempted(BaseException):
    """SIGTERM came; says how to go on. No `Exception`, as KeyboardInterrupt is none."""


class Preemption:
    """Raises `Preempted` when SIGTERM comes: at once, or while it is deferred at the next `check`."""

    def __init__(self, remedy: str) -> None:
        self.remedy = remedy
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
            raise Preempted(f"stopped by SIGTERM; {self.remedy}")

    @contextmanager
    def deferred(self) -> Generator[None, None, None]:
        """Nothing is torn out of its middle in here; checks when it is left in peace."""
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False
        self.check()


class _Agreed(Preemption):
    """With several processes: all of them come to each `check` together, and it raises in all or none."""

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        """The signal's handler."""
        del number, frame
        self._asked = True

    def check(self) -> None:
        """Raises `Preempted` if SIGTERM has come to one of the processes."""
        self._asked = hosts.anywhere(self._asked)
        super().check()


@contextmanager
def preemptible(remedy: str) -> Generator[Preemption, None, None]:
    """Handles SIGTERM meanwhile; only the main thread can, in others nothing changes.

    Args:
      remedy: how to go on, for the message.
    """
    preemption = Preemption(remedy) if hosts.num_processes() == 1 else _Agreed(remedy)
    if threading.current_thread() is not threading.main_thread():
        yield preemption
        return
    before = signal.signal(signal.SIGTERM, preemption.on_signal)
    try:
        yield preemption
    finally:
        signal.signal(signal.SIGTERM, before)
