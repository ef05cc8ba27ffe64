"""What `evolq VERB --help` says of the config: the fields that people set most. `--help-all` lists all."""

import textwrap
from typing import Any

import docstring_parser
from rich.console import Console
from rich.table import Table

from evolq_jax.named import name_of

DATA = ("model.name", "model.weights", "data.calibration", "data.num_calibration")
EVALUATION = ("data.evaluation", "data.num_evaluation", "data.class_index")
QUANT = ("quant.scheme", "quant.weight_bits", "quant.activation_bits", "calibration.chain")
SEARCH = ("search.sites", "search.fitness")
ALGORITHM = (
    "search.algorithm",
    "search.passes",
    "search.generations",
    "search.population_size",
    "search.budget",
)
BASELINE = ("baseline.optimizer", "baseline.learning_rate", "baseline.budget")
LANDSCAPE = ("kind", "direction", "points", "epsilon", "losses", "images", "num_images", "sites")
RUN = ("memory", "seed")
COMMON = {
    "search": (*DATA, *EVALUATION, *QUANT, *SEARCH, *ALGORITHM, *RUN),
    "calibrate": (*DATA, *QUANT, *RUN),
    "baseline": (*DATA, *EVALUATION, *QUANT, *SEARCH, *BASELINE, *RUN),
    "landscape": (*DATA, *QUANT, *(f"landscape.{name}" for name in LANDSCAPE), *RUN),
    "evaluate": (*DATA, *EVALUATION, *QUANT, *RUN),
    "predict": EVALUATION[-1:],
}


def print_common(console: Console, config: Any, verb: str) -> None:
    """The fields that people set most with a verb: their values in a config, and what they mean."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for heading in ("option", "value", "meaning"):
        table.add_column(heading, no_wrap=heading == "option", overflow="fold")
    for name in COMMON[verb]:
        *sections, last = name.split(".")
        holder = config
        for section in sections:
            holder = getattr(holder, section)
        option = f"--{name.replace('_', '-')}"
        table.add_row(option, _shown(getattr(holder, last)), _meaning(type(holder), last))
    console.print(table)


def _shown(value: Any) -> str:
    """A value as the command line takes it."""
    if isinstance(value, tuple):
        return " ".join(map(_shown, value))
    return "none" if value is None else str(value if isinstance(value, str | int | float) else name_of(value))


def _meaning(kind: type, field: str) -> str:
    """The first sentence of what a config's docstring says of a field."""
    parsed = docstring_parser.parse(kind.__doc__ or "")
    described = next((each.description for each in parsed.params if each.arg_name == field), None)
    first = " ".join((described or "").split()).split(". ")[0].split("; ")[0]
    return textwrap.shorten(first.removesuffix("."), 120, placeholder=" ...")
