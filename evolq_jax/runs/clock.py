"""The time that a run has taken, over all processes that worked on it."""

import time


class Clock:
    """Seconds of the run: those of this process, and those of earlier ones up to the last checkpoint."""

    def __init__(self) -> None:
        self.earlier = 0.0
        self._began = time.monotonic()

    def seconds(self) -> float:
        """The seconds until now."""
        return self.earlier + time.monotonic() - self._began
