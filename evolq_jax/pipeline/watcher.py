"""A watcher follows a run: the command line's progress bars, or nobody."""

from typing import Protocol

from evolq_jax.search.state import Generation
from evolq_jax.typing import Progress, no_progress


class Watcher(Protocol):
    """Follows the progress of a run."""

    def stage(self, name: str) -> Progress:
        """A new stage begins. Call the result with (done, total)."""
        ...

    def generation(self, record: Generation, total_evaluations: int) -> None:
        """A generation of the search has ended."""
        ...


class Silent:
    """Watches nothing."""

    def stage(self, name: str) -> Progress:
        """No progress."""
        del name
        return no_progress

    def generation(self, record: Generation, total_evaluations: int) -> None:
        """Nothing."""
        del record, total_evaluations
