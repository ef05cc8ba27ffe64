"""Who follows a run: the command line's progress bars, or nobody."""

from collections.abc import Callable
from typing import Protocol

from evolq_jax.search.blockwise import Generation


class Watcher(Protocol):
    """Who is told how a run goes on: progress bars, or nobody."""

    def stage(self, name: str) -> Callable[[int, int], None]:
        """A new stage begins; the result is to be called with (done, total)."""
        ...

    def generation(self, record: Generation, total_evaluations: int) -> None:
        """A generation of the search has ended."""
        ...


class Silent:
    """Watches nothing."""

    def stage(self, name: str) -> Callable[[int, int], None]:
        """No progress."""
        del name
        return lambda done, total: None

    def generation(self, record: Generation, total_evaluations: int) -> None:
        """Nothing."""
        del record, total_evaluations
