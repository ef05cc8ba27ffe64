"""How long a run has taken, over all processes that worked on it."""

import time


class Clock:
    """Seconds of the run: this process's, and those of earlier ones up to where this one goes on."""

    def __init__(self) -> None:
        self.earlier = 0.0
        self._began = time.monotonic()

    def seconds(self) -> float:
        """Until now."""
        return self.earlier + time.monotonic() - self._began
