"""Tables for a terminal or a log."""

from collections.abc import Iterable, Mapping
from typing import Any

from rich.table import Table

PERCENT = ("top1", "top5", "agreement")
TITLES = {
    "top1": "top-1 %",
    "top5": "top-5 %",
    "agreement": "agreement %",
    "kl": "KL to float",
    "info_nce": "infoNCE",
}

COMPARED = {
    "calibration_fitness": "fitness",
    "kl": "KL",
    "info_nce": "infoNCE",
    "agreement": "agree %",
    "top1": "top-1 %",
}

JAGGEDNESS = {
    "minima_per_unit": "minima / unit",
    "total_variation": "variation",
    "roughness": "roughness",
    "autocorrelation_length": "corr. length",
}


def result_table(result: Mapping[str, Any]) -> Table:
    """Float, init and final side by side, and the change that the search made, with its interval."""
    edges = result["edge_weight_bits"]
    differ = f" (edges W{edges})" if edges not in (None, result["weight_bits"]) else ""
    title = (
        f"{result['name']}: {result['scheme']} W{result['weight_bits']}A{result['activation_bits']}{differ}, "
        f"seed {result['seed']}, {result['num_evaluation_images']} images"
    )
    table = Table(title=title)
    table.add_column("")
    networks = [name for name in ("float", "init", "final") if name in result]
    for name in networks:
        table.add_column(name, justify="right")
    if "delta" in result:
        table.add_column("final - init [95 %]", justify="right")
    for metric, heading in TITLES.items():
        cells = [_cell(metric, result[name][metric]) for name in networks]
        if "delta" in result:
            cells.append(_interval(metric, result["delta"].get(metric)))
        table.add_row(heading, *cells)
    return table


def jaggedness_table(summary: Mapping[str, Any]) -> Table:
    """How jagged every loss of a scan is, over its lines (docs/landscapes.md has the definitions)."""
    scanned = f"{summary['kind']}, {summary['num_images']} images"
    title = f"{summary['name']}: {scanned}; mean ± deviation over lines"
    table = Table(title=title, box=None, padding=(0, 2, 0, 0), pad_edge=False, title_justify="left")
    table.add_column("loss", no_wrap=True, min_width=14)
    for heading in JAGGEDNESS.values():
        table.add_column(heading, justify="right", no_wrap=True, min_width=13)
    for column, numbers in summary["jaggedness"].items():
        table.add_row(column, *(_spread(numbers[name]["1"]) for name in JAGGEDNESS))
    return table


def comparison_table(summary: Mapping[str, Any]) -> Table:
    """Every method's metrics over its seeds, and its wins against its init and against the reference.

    Args:
      summary: the content of `comparison.json`.
    """
    against = f" and {summary['reference']}" if summary["reference"] else ""
    title = (
        f"{summary['name']}: {summary['budget']:,} candidate-images a run, {len(summary['seeds'])} seeds\n"
        f"means over seeds; wins against init{against}"
    )
    table = Table(title=title, box=None, padding=(0, 1, 0, 0), pad_edge=False, title_justify="left")
    for heading in ("method", "", "init", "final", "change [95 %]", "wins"):
        table.add_column(heading, justify="left" if heading in ("method", "") else "right", no_wrap=True)
    for method, numbers in summary["methods"].items():
        name = method
        for metric, heading in COMPARED.items():
            if metric in numbers:
                table.add_row(name, heading, *_compared(metric, numbers[metric], len(summary["seeds"])))
                name = ""
    return table


def _compared(metric: str, numbers: Mapping[str, Any], seeds: int) -> list[str]:
    wins = [f"{share * seeds:.0f}/{seeds}" for share in numbers["wins"].values()]
    cells = [_cell(metric, numbers[name]["mean"]) for name in ("init", "final")]
    return [*cells, _interval(metric, numbers["change"]), " ".join(wins)]


def fact_table(title: str, facts: Mapping[str, Any]) -> Table:
    """Names and values, one per line. Values in seconds are shown as times."""
    table = Table(title=title, show_header=False)
    table.add_column("", no_wrap=True)
    table.add_column("", overflow="fold")
    for name, value in facts.items():
        label = name.replace("_mib", " (MiB)").replace("_", " ")
        if name.endswith("seconds"):
            table.add_row(label.removesuffix("seconds") + "time", duration(value))
        else:
            table.add_row(label, f"{value:,}" if isinstance(value, int | float) else str(value))
    return table


def row_table(title: str, headings: Iterable[str], rows: Iterable[Iterable[Any]]) -> Table:
    """A plain table without lines, for many columns. Numbers are on the right."""
    table = Table(title=title, box=None, padding=(0, 1, 0, 0), pad_edge=False, title_justify="left")
    rows = [list(row) for row in rows]
    for column, heading in enumerate(headings):
        numeric = all(isinstance(row[column], int | float) for row in rows)
        table.add_column(heading, justify="right" if numeric else "left", no_wrap=True)
    for row in rows:
        table.add_row(*(str(value) for value in row))
    return table


def duration(seconds: float) -> str:
    """`12 s`, `5 min` or `3.2 h`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _cell(metric: str, value: float | None) -> str:
    if value is None:
        return "-"
    return f"{100 * value:.1f}" if metric in PERCENT else f"{value:.4f}"


def _spread(numbers: Mapping[str, Any]) -> str:
    if numbers["mean"] is None:
        return "-"
    return f"{numbers['mean']:.3g}" + ("" if numbers["std"] is None else f" ± {numbers['std']:.1g}")


def _interval(metric: str, delta: Mapping[str, float | None] | None) -> str:
    if delta is None:
        return "-"
    factor, digits = (100, 1) if metric in PERCENT else (1, 4)
    values = (delta[key] for key in ("mean", "low", "high"))
    mean, *ends = (f"{factor * value:+.{digits}f}" for value in values if value is not None)
    return f"{mean} [{', '.join(ends)}]" if ends else mean
