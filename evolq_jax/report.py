"""Tables and progress for people at a terminal."""

from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

PERCENT = ("top1", "top5", "agreement")
TITLES = {
    "top1": "top-1 %",
    "top5": "top-5 %",
    "agreement": "agreement %",
    "kl": "KL to float",
    "info_nce": "infoNCE",
}


def result_table(result: Mapping[str, Any]) -> Table:
    """Float, init and final next to each other, and what the search changed with its interval."""
    title = (
        f"{result['name']}: {result['scheme']} W{result['weight_bits']}A{result['activation_bits']}, "
        f"seed {result['seed']}, {result['num_evaluation_images']} held-out images"
    )
    table = Table(title=title)
    table.add_column("")
    networks = [name for name in ("float", "init", "final") if name in result]
    for name in networks:
        table.add_column(name, justify="right")
    if "delta" in result:
        table.add_column("final − init [95 %]", justify="right")
    for metric, heading in TITLES.items():
        cells = [_cell(metric, result[name][metric]) for name in networks]
        if "delta" in result:
            cells.append(_interval(metric, result["delta"].get(metric)))
        table.add_row(heading, *cells)
    return table


def fact_table(title: str, facts: Mapping[str, Any]) -> Table:
    """Names and values, a line each."""
    table = Table(title=title, show_header=False)
    table.add_column("")
    table.add_column("", overflow="fold")
    for name, value in facts.items():
        table.add_row(name, str(value))
    return table


def row_table(title: str, headings: Iterable[str], rows: Iterable[Iterable[Any]]) -> Table:
    """A plain table; numbers to the right."""
    table = Table(title=title)
    rows = [list(row) for row in rows]
    for column, heading in enumerate(headings):
        numeric = all(isinstance(row[column], int | float) for row in rows)
        table.add_column(heading, justify="right" if numeric else "left")
    for row in rows:
        table.add_row(*(f"{value:,}" if isinstance(value, int) else str(value) for value in row))
    return table


def _cell(metric: str, value: float | None) -> str:
    if value is None:
        return "–"
    return f"{100 * value:.1f}" if metric in PERCENT else f"{value:.4f}"


def _interval(metric: str, delta: Mapping[str, float] | None) -> str:
    if delta is None:
        return "–"
    factor, digits = (100, 1) if metric in PERCENT else (1, 4)
    mean, low, high = (f"{factor * delta[key]:+.{digits}f}" for key in ("mean", "low", "high"))
    return f"{mean} [{low}, {high}]"


class TerminalWatcher:
    """Progress bars with time left: one line a stage. Use as a context manager."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description:<28}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=console,
        )
        self._search: Any = None

    def __enter__(self) -> "TerminalWatcher":
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def stage(self, name: str) -> Callable[[int, int], None]:
        """A bar for a new stage."""
        task = self._progress.add_task(name, total=None, note="", visible=False)

        def update(done: int, total: int) -> None:
            self._progress.update(task, completed=done, total=total, visible=True)

        return update

    def generation(self, record: Any, total_evaluations: int) -> None:
        """Moves the search's bar and shows where it is."""
        if self._search is None:
            self._search = self._progress.add_task("searching", total=total_evaluations, note="")
        note = (
            f"pass {record.pass_number + 1}  {record.segment} {record.block}  fitness {record.best_fitness:.5g}"
        )
        self._progress.update(self._search, completed=record.evaluations, note=note)
