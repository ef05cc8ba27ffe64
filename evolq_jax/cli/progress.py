"""Shows progress: bars at a terminal, lines in a log."""

import math
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from evolq_jax.cli.tables import duration
from evolq_jax.devices import hosts


def _where(record: Any) -> str:
    """The place of a generation in the search, and the fitness that it reached."""
    place = f"pass {record.pass_number + 1} {record.segment} {record.block}"
    return f"search: {place}, fitness {record.best_fitness:.5g}"


class TerminalWatcher:
    """Progress bars with the time left, one line per stage. Use it as a context manager."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
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

    def generation(self, record: Any, total_evaluations: int) -> None:
        """Moves the search's bar and shows where it is."""
        if self._search is None:
            self._search = self._progress.add_task("", total=total_evaluations)
        self._progress.update(self._search, completed=record.evaluations, description=_where(record))


class LineWatcher:
    """Progress without a terminal: a line now and then. Use it as a context manager."""

    def __init__(self, stream: TextIO, every: float = 10.0) -> None:
        self._stream, self._every = stream, every
        self._next = time.monotonic() + every

    def __enter__(self) -> "LineWatcher":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        del kind, error, trace

    def stage(self, name: str) -> Callable[[int, int], None]:
        """Lines of a new stage, with the time left once there is a rate."""
        begin: tuple[int, float] | None = None

        def update(done: int, total: int) -> None:
            nonlocal begin
            now = time.monotonic()
            begin = begin or (done, now)  # a continued scan does not begin at nothing
            steps = done - begin[0]
            left = f", {duration((now - begin[1]) / steps * (total - done))} left" if steps else ""
            self._tell(f"{name} {done}/{total}{left}")

        return update

    def generation(self, record: Any, total_evaluations: int) -> None:
        """A line that says where the search is, and how long it will go on."""
        left = record.seconds / record.evaluations * (total_evaluations - record.evaluations)
        done = f"{record.evaluations}/{total_evaluations}"
        self._tell(f"{_where(record)}, evaluation {done}, {duration(left)} left")

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
