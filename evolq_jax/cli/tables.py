"""Tables for a terminal or a log."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from evolq_jax.devices.compile_cache import describe
from evolq_jax.landscape.jaggedness import Spread
from evolq_jax.metrics import Interval
from evolq_jax.paths import printable
from evolq_jax.runs.results.comparison import ComparisonResult, MetricOverSeeds
from evolq_jax.runs.results.headline import headline
from evolq_jax.runs.results.landscape import LandscapeResult
from evolq_jax.runs.results.networks import BaselineResult, EvaluationResult, SearchResult
from evolq_jax.verbs.compare.plan import ComparisonPlan
from evolq_jax.verbs.landscape.plan import LandscapePlan
from evolq_jax.verbs.search.plan import SearchPlan

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


# What the network after the chain is called, by the chain; after all other chains it is `corrected`.
CALIBRATED: dict[tuple[str, ...], str] = {(): "init", ("ranges",): "ranges"}
# What the last network is called, and its change.
LAST_STAGES = {
    "search": ("searched", "by the search"),
    "baseline": ("descended", "by the descent"),
    None: ("final", "final - init"),
}

# What the facts of a landscape's plan are called, where not as in the plan.
SCAN_FACTS = {"scan": "kind", "num_directions": "directions", "left_out": "left_out_without_labels"}


def result_table(result: SearchResult | BaselineResult | EvaluationResult) -> Table:
    """Float, ranges, corrected and searched next to each other, and what the search changed.

    infoNCE is a row where the search minimised it.
    """
    setting = result.setting
    edges = setting.edge_weight_bits
    differ = f" (edges W{edges})" if edges not in (None, setting.weight_bits) else ""
    title = (
        f"{setting.name}: {setting.scheme} W{setting.weight_bits}A{setting.activation_bits}{differ}, "
        f"seed {setting.seed}, {result.num_evaluation_images} images"
    )
    table = Table(title=title, box=SIMPLE_HEAD, padding=(0, 1, 0, 0), title_justify="left")
    table.add_column("", no_wrap=True)
    verb = result.found_by if isinstance(result, EvaluationResult) else result.kind
    last, change = LAST_STAGES[verb]
    init = CALIBRATED.get(setting.chain, "corrected")
    networks = {"float": result.float, "ranges": result.ranges, init: result.init, last: result.final}
    columns = {name: scores for name, scores in networks.items() if scores is not None}
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    if result.delta is not None:
        table.add_column(f"{change} [95 %]", justify="right", no_wrap=True)
    minimised = setting.fitness is None or "info_nce" in setting.fitness
    for metric, heading in TITLES.items():
        no_top5 = metric == "top5" and result.float.top1 is not None and result.float.top5 is None
        if no_top5 or (metric == "info_nce" and not minimised):
            continue
        cells = [_cell(metric, getattr(scores, metric)) for scores in columns.values()]
        if result.delta is not None:
            cells.append(_interval(metric, getattr(result.delta, metric, None)))
        table.add_row(heading, *cells)
    return table


def print_result(console: Console, result: SearchResult | BaselineResult | EvaluationResult) -> None:
    """The result's headline, then its table."""
    for line in headline(result):
        console.print(line)
    console.print(result_table(result))
    if result.setting.described:
        console.print(result.setting.described)


def score_rows(metrics: Mapping[str, Mapping[str, float | None]]) -> Iterator[list[str]]:
    """A row for each score that is known, with a cell for each network."""
    for metric, heading in TITLES.items():
        values = [scores.get(metric) for scores in metrics.values()]
        if any(value is not None for value in values):
            yield [heading, *(_cell(metric, value) for value in values)]


def jaggedness_table(result: LandscapeResult) -> Table:
    """How jagged each loss of a scan is, over its lines (docs/landscapes.md has the definitions)."""
    scanned = f"{result.landscape.kind}, {result.num_images} images"
    title = f"{result.setting.name}: {scanned}; mean ± deviation over lines"
    table = Table(title=title, box=None, padding=(0, 2, 0, 0), pad_edge=False, title_justify="left")
    table.add_column("loss", no_wrap=True, min_width=14)
    for heading in JAGGEDNESS.values():
        table.add_column(heading, justify="right", no_wrap=True, min_width=13)
    for column, jaggedness in result.jaggedness.items():
        table.add_row(column, *(_spread(getattr(jaggedness, name)[1]) for name in JAGGEDNESS))
    return table


def comparison_table(result: ComparisonResult) -> Table:
    """What calibration made of ranges, and what each method's own moves made of the calibrated network.

    infoNCE is a row where methods may have minimised it.
    """
    against = f" and {result.reference}" if result.reference else ""
    differ = f"\nmethods differ on purpose in: {', '.join(result.varies)}" if result.varies else ""
    title = (
        f"{result.name}: {result.budget:,} candidate-images a run, {len(result.seeds)} seeds{differ}\n"
        f"means over seeds; change: by the method's own moves; wins against its start{against}"
    )
    table = Table(title=title, box=None, padding=(0, 1, 0, 0), pad_edge=False, title_justify="left")
    for heading in ("method", "", "start", "final", "change [95 %]", "wins"):
        table.add_column(heading, justify="left" if heading in ("method", "") else "right", no_wrap=True)
    shared = not result.varies
    minimised = result.fitness is None or "info_nce" in result.fitness
    shown = {metric: name for metric, name in COMPARED.items() if metric != "info_nce" or minimised}
    for number, (method, numbers) in enumerate(result.methods.items()):
        if number == 0 or not shared:
            chain = "calibration" if shared else f"{method}: calibration"
            _add_rows(table, chain, {m: _by_chain(m, getattr(numbers, m)) for m in shown})
        compared = {m: _compared(m, getattr(numbers, m), len(result.seeds)) for m in shown}
        _add_rows(table, method, compared)
    return table


def _add_rows(table: Table, name: str, rows: Mapping[str, list[str] | None]) -> None:
    """One row for each metric that has cells. The first one has the name."""
    for metric, cells in rows.items():
        if cells is not None:
            table.add_row(name, COMPARED[metric], *cells)
            name = ""


def _by_chain(metric: str, numbers: MetricOverSeeds | None) -> list[str] | None:
    """From ranges to the calibrated network, where the chain has more than ranges."""
    if numbers is None or numbers.ranges is None:
        return None
    before, after = numbers.ranges.mean, numbers.init.mean
    return [
        _cell(metric, before),
        _cell(metric, after),
        _interval(metric, Interval(after - before, None, None)),
        "",
    ]


def _compared(metric: str, numbers: MetricOverSeeds | None, seeds: int) -> list[str] | None:
    if numbers is None:
        return None
    shares = (numbers.wins.init, numbers.wins.reference)
    wins = [f"{share * seeds:.0f}/{seeds}" for share in shares if share is not None]
    cells = [_cell(metric, each.mean) for each in (numbers.init, numbers.final)]
    return [*cells, _interval(metric, numbers.change), " ".join(wins)]


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
            table.add_row(label, _fact(value))
    return table


def facts_of(record: Any) -> dict[str, Any]:
    """The fields of a result or a plan, without its kind."""
    return {name: value for name, value in vars(record).items() if name != "kind"}


def _fact(value: Any) -> str:
    if isinstance(value, tuple):
        return printable(", ".join(map(str, value)))
    if value is None:
        return "none"
    return f"{value:,}" if isinstance(value, int | float) else printable(str(value))


def plan_table(title: str, plan: SearchPlan | ComparisonPlan | LandscapePlan) -> Table:
    """What a verb would do, a fact a line."""
    facts = facts_of(plan) | {"compiled programs kept": describe()}
    if isinstance(plan, LandscapePlan):
        facts |= {
            "num_directions": f"{plan.num_directions} ({', '.join(plan.axes)})",
            "grid": " × ".join(map(str, plan.grid)),
            "left_out": plan.left_out or "nothing",
            "images": f"{plan.num_images} {plan.images} images",
        }
        facts = {
            SCAN_FACTS.get(name, name): facts[name] for name in facts if name not in ("axes", "num_images")
        }
    return fact_table(title, facts)


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


def _spread(spread: Spread) -> str:
    if spread.mean is None:
        return "-"
    return f"{spread.mean:.3g}" + ("" if spread.std is None else f" ± {spread.std:.1g}")


def _interval(metric: str, delta: Interval | None) -> str:
    if delta is None:
        return "-"
    factor, digits = (100, 1) if metric in PERCENT else (1, 4)
    values = (delta.mean, delta.low, delta.high)
    mean, *ends = (f"{factor * value:+.{digits}f}" for value in values if value is not None)
    return f"{mean} [{', '.join(ends)}]" if ends else mean
