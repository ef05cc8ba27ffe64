"""Shows progress: bars at a terminal, lines in a log."""

import math
import sys
import time
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import TextIO

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text

from evolq_jax.cli.tables import duration
from evolq_jax.devices import hosts
from evolq_jax.pipeline.watcher import Standing


def _numbers(standing: Standing) -> str:
    """What the fitness is, where it began, and where it is."""
    named = {"init": standing.init, "best": standing.best, "held out": standing.held_out}
    known = [f"{name} {value:.4g}" for name, value in named.items() if value is not None]
    parts = [f"{standing.fitness} on calibration images: {', '.join(known)}"] if known else []
    return "; ".join(parts + ([standing.moves] if standing.moves else []))


class _Bars(Progress):
    """Bars, and a line of text under them."""

    text = ""

    def get_renderables(self) -> Iterable[RenderableType]:
        """What is shown."""
        yield from super().get_renderables()
        if self.text:
            yield Text(self.text)


class TerminalWatcher:
    """Progress bars with the time left, one line per stage. Use it as a context manager."""

    def __init__(self, console: Console) -> None:
        self._progress = _Bars(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=12),
            MofNCompleteColumn(),
            TimeRemainingColumn(compact=True, elapsed_when_finished=True),
            console=console,
        )
        self._search: TaskID | None = None

    def __enter__(self) -> "TerminalWatcher":
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def stage(self, name: str) -> Callable[[int, int], None]:
        """A bar for a new stage, shown once there is progress."""
        task = self._progress.add_task(name, total=None, visible=False)

        def update(done: int, total: int) -> None:
            self._progress.update(task, completed=done, total=total, visible=True)

        return update

    def standing(self, standing: Standing) -> None:
        """Moves the bar of the search or the descent, and shows its numbers."""
        if self._search is None:
            self._search = self._progress.add_task("")
        self._progress.text = _numbers(standing)
        done, total = round(standing.done), round(standing.total)
        self._progress.update(self._search, completed=done, total=total, description=standing.place)


class _Rate:
    """How long work will take, from how it went so far. What goes on does not begin at nothing."""

    def __init__(self) -> None:
        self._begin: tuple[float, float] | None = None

    def left(self, done: float, total: float) -> str:
        """`, 8 min left`, once there is a rate."""
        now = time.monotonic()
        first, began = self._begin = self._begin or (done, now)
        return f", {duration((now - began) / (done - first) * (total - done))} left" if done > first else ""


class LineWatcher:
    """Progress without a terminal: a line now and then. Use it as a context manager."""

    def __init__(self, stream: TextIO, every: float = 10.0) -> None:
        self._stream, self._every = stream, every
        self._next = time.monotonic() + every
        self._rate = _Rate()

    def __enter__(self) -> "LineWatcher":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        del kind, error, trace

    def stage(self, name: str) -> Callable[[int, int], None]:
        """Lines of a new stage, with the time left once there is a rate."""
        rate = _Rate()

        def update(done: int, total: int) -> None:
            self._tell(f"{name} {done}/{total}{rate.left(done, total)}")

        return update

    def standing(self, standing: Standing) -> None:
        """A line that says where the search or the descent is, and how long it will go on."""
        done, total = round(standing.done), round(standing.total)
        spent = f"{done}/{total} candidate-images{self._rate.left(done, total)}"
        self._tell("; ".join(filter(None, (standing.place, _numbers(standing), spent))))

    def _tell(self, line: str) -> None:
        now = time.monotonic()
        if now >= self._next:
            self._next = now + self._every
            print(line, file=self._stream, flush=True)


def make_watcher() -> TerminalWatcher | LineWatcher:
    """Bars if standard error is a terminal, otherwise a line every ten seconds.

    Of several processes only the first shows anything.
    """
    if not hosts.is_first():
        return LineWatcher(sys.stderr, every=math.inf)
    console = Console(stderr=True)
    return TerminalWatcher(console) if console.is_terminal else LineWatcher(sys.stderr)
