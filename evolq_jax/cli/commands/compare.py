"""`evolq compare`."""

import argparse
from dataclasses import replace
from typing import get_args

from evolq_jax.cli.command import Call, Command
from evolq_jax.cli.configs import changed, needs_config
from evolq_jax.cli.tables import comparison_table, plan_table
from evolq_jax.config.comparison import Comparison, Start, join
from evolq_jax.config.experiment import Experiment
from evolq_jax.config.load import load_config
from evolq_jax.errors import UserError
from evolq_jax.verbs.compare.plan import plan_compare
from evolq_jax.verbs.compare.run import run_compare

SET = ("budget", "milestones", "reference")  # fields of a comparison that options set


def run(call: Call) -> None:
    """Compares, or shows the plan."""
    comparison, run_dir = _comparison(call), call.options.run_dir
    if call.options.dry_run:
        plan = plan_compare(comparison, run_dir)
        call.console.print(plan_table(f"plan of {comparison.name}", plan))
        return
    with call.make_watcher() as watcher:
        result = run_compare(comparison, run_dir, watcher)
    call.console.print(comparison_table(result))
    call.console.print(f"everything is in {result.run_dir}")


def _comparison(call: Call) -> Comparison:
    """Fields and presets apply to every method, so that all start from the same init."""
    options = call.options
    if not options.configs:
        raise needs_config(call)
    if any(given.split("=")[0] == "--seed" for given in call.overrides):
        raise UserError("every method of a comparison runs with the same seeds: set --seeds, not --seed")
    loaded = [load_config(path, Experiment, Comparison) for path in options.configs]
    comparison = join([_changed(part, call) for part in loaded], tuple(options.vary))
    given = {name: getattr(options, name) for name in SET if getattr(options, name) is not None}
    seeds = {"seeds": tuple(options.seeds)} if options.seeds else {}
    return replace(comparison, **given, **seeds)


def _changed(part: Experiment | Comparison, call: Call) -> Experiment | Comparison:
    """Before parts are joined, since a field can make them equal."""
    if isinstance(part, Experiment):
        return changed(part, call)
    methods = (replace(method, config=changed(method.config, call)) for method in part.methods)
    return replace(part, methods=tuple(methods))


def add_options(parser: argparse.ArgumentParser) -> None:
    """What of a comparison can be set."""
    parser.add_argument(
        "--seeds", type=int, nargs="+", help="each method runs with each seed (default: 0 1 2)"
    )
    parser.add_argument("--budget", type=int, help="candidate-images per run (default: the first method's)")
    parser.add_argument("--milestones", type=int, help="parts of the budget; scales are scored after each")
    parts = "parts of the configs in which methods differ on purpose; in others a difference is refused"
    parser.add_argument("--vary", nargs="+", choices=get_args(Start), default=[], metavar="PART", help=parts)
    parser.add_argument("--reference", help="the method with which the others are compared")


COMMAND = Command(
    does="run several methods with the same seeds and budget, and compare what they reach",
    run=run,
    takes="config files of experiments or comparisons",
    several=True,
    example="configs/compare_digits.py",
    writes=True,
    continues=True,
    plans=True,
    add_options=add_options,
)
