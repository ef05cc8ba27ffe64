"""A watcher follows a run: the command line's progress bars, or nobody."""

from typing import NamedTuple, Protocol

from evolq_jax.typing import Progress, no_progress


class Standing(NamedTuple):
    """Where a search or a descent stands. Its fitness is that of kept scales, on calibration images."""

    place: str  # what it is at
    done: float  # candidate-images
    total: float  # candidate-images; at the end as many as done
    fitness: str  # its name
    init: float | None  # fitness at the start; None: not known yet
    best: float | None  # fitness of the best scales so far, on the same images
    held_out: float | None  # theirs on the images held out; None: there are none, or it is not known yet
    moves: str | None = None  # how many of them were kept


class Watcher(Protocol):
    """Follows the progress of a run."""

    def stage(self, name: str) -> Progress:
        """A new stage begins. Call the result with (done, total)."""
        ...

    def standing(self, standing: Standing) -> None:
        """A search or a descent has come this far."""
        ...


class Silent:
    """Watches nothing."""

    def stage(self, name: str) -> Progress:
        """No progress."""
        del name
        return no_progress

    def standing(self, standing: Standing) -> None:
        """Nothing."""
        del standing
