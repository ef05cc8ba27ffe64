"""The command line: `evolq VERB CONFIG [--field.name value ...]`."""

import argparse
import contextlib
import dataclasses
import sys
from collections.abc import Sequence
from typing import Any, get_type_hints

import tyro
from rich.console import Console
from rich.table import Table

from evolq_jax import __version__
from evolq_jax.config import Experiment, load_config, with_preset
from evolq_jax.errors import UserError, suggestion
from evolq_jax.experiment.plan import plan_search
from evolq_jax.experiment.run import run_calibrate, run_evaluate, run_search
from evolq_jax.experiment.run_directory import is_run
from evolq_jax.experiment.setup import model_rows
from evolq_jax.experiment.train import TrainExperiment, run_training
from evolq_jax.report import TerminalWatcher, fact_table, result_table, row_table

EPILOG = """\
examples:
  evolq search configs/digits_w3a8.py
  evolq search configs/vit_tiny_w4a8.py --dry-run
  evolq search configs/vit_tiny_w4a8.py --preset faithful --quant.scheme fully_quantized --seed 1
  evolq search configs/vit_tiny_w4a8.py --help        (every field that can be overridden)
  evolq evaluate runs/vit_tiny_w4a8-001
"""


def main() -> None:
    """The entry point: user errors are one line and status 2."""
    try:
        run(sys.argv[1:])
    except UserError as error:
        print(f"evolq: error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("evolq: interrupted", file=sys.stderr)
        sys.exit(130)


def run(args: Sequence[str]) -> None:
    """Runs one command.

    Raises:
      UserError: for whatever the user can mend.
    """
    options, overrides = make_parser().parse_known_args(args)
    console = Console()
    if getattr(options, "help", False):
        _print_help(options)
    elif options.verb == "models":
        _reject(overrides)
        console.print(_models_table())
    elif options.verb == "train":
        config = override(_load(options), overrides, options.verb)
        with TerminalWatcher(console) as watcher:
            result = run_training(config, watcher.stage("training"))
        console.print(f"wrote {result}")
    elif options.verb == "evaluate" and options.config and is_run(options.config):
        _reject(overrides)
        with TerminalWatcher(console) as watcher:
            result = run_evaluate(options.config, watcher)
        console.print(result_table(result))
    else:
        _run_experiment(console, options, override(_load(options), overrides, options.verb))


def _run_experiment(console: Console, options: argparse.Namespace, config: Experiment) -> None:
    if options.dry_run:
        console.print(fact_table(f"plan of {config.name}", plan_search(config)))
        return
    with TerminalWatcher(console) as watcher:
        if options.verb == "search":
            result = run_search(config, options.run_dir, watcher)
        elif options.verb == "calibrate":
            result = run_calibrate(config, options.run_dir, watcher)
        else:
            result = run_evaluate(config, watcher)
    if options.verb == "calibrate":
        console.print(fact_table(f"calibrated {config.name}", result))
        return
    console.print(result_table(result))
    if options.verb == "search":
        console.print(
            f"{result['evaluations']} evaluations in {result['seconds_search']:.0f} s; "
            f"everything is in {result['run_dir']}"
        )


def make_parser() -> argparse.ArgumentParser:
    """Verbs and what they share; fields of the config are left to `override`."""
    parser = argparse.ArgumentParser(
        prog="evolq",
        description="Post-training quantization by evolutionary search over quantization scales.",
        allow_abbrev=False,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"evolq_jax {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    helps = {
        "search": "calibrate, search, and compare float, init and final on held-out images",
        "calibrate": "find the first scales and write them",
        "evaluate": "score a finished run, or a config's init, on held-out images",
        "train": "train a small float model with a training config",
    }
    for verb, text in helps.items():
        sub = verbs.add_parser(verb, help=text, description=text, add_help=False, allow_abbrev=False)
        what = "a run directory or a config file" if verb == "evaluate" else "a config file"
        sub.add_argument("config", nargs="?", metavar="CONFIG", help=what)
        sub.add_argument("-h", "--help", action="store_true", help="show every field of the config")
        example = "configs/train_digits.py" if verb == "train" else "configs/digits_w3a8.py"
        sub.set_defaults(parser=sub, what=what, example=example, preset="default", run_dir=None, dry_run=False)
        if verb == "train":
            continue
        sub.add_argument("--preset", choices=["default", "faithful"], default="default")
        sub.add_argument("--run-dir", help="directory for the results (default: the next free runs/NAME-NNN)")
        sub.add_argument("--dry-run", action="store_true", help="print the plan and stop")
    verbs.add_parser("models", help="list the models of the registry")
    return parser


def override(config: Any, args: Sequence[str], verb: str) -> Any:
    """The config with `--field.name value` pairs put in, typed by the config's dataclasses.

    Raises:
      UserError: a field is unknown, or an argument belongs to no field.
    """
    known = {name.replace("_", "-") for name in _field_names(type(config))}
    for position, arg in enumerate(args):
        name = arg.removeprefix("--").split("=")[0].replace("_", "-")
        if arg.startswith("--") and name not in known:
            hint = suggestion(name, known).replace("'", "'--", 1)
            raise UserError(f"unknown option '{arg}'{hint} (`evolq {verb} CONFIG --help` lists all)")
        if not arg.startswith("-") and position == 0:
            raise UserError(f"unexpected argument '{arg}'; fields are set as in --search.passes 3")
    return tyro.cli(type(config), default=config, args=list(args), prog=f"evolq {verb} CONFIG")


def _field_names(kind: type, prefix: str = "") -> list[str]:
    """Dotted names of all fields of nested dataclasses."""
    names: list[str] = []
    for name, hint in get_type_hints(kind).items():
        nested = dataclasses.is_dataclass(hint)
        names += _field_names(hint, f"{prefix}{name}.") if nested else [prefix + name]  # type: ignore[arg-type]
    return names


def _load(options: argparse.Namespace) -> Any:
    """The config that a command line names, under its preset."""
    if options.config is None:
        raise UserError(f"`evolq {options.verb}` needs {options.what}, as in: evolq {options.verb} {options.example}")
    if options.verb == "train":
        return load_config(options.config, TrainExperiment)
    return with_preset(load_config(options.config), options.preset)


def _print_help(options: argparse.Namespace) -> None:
    """The verb's own options, then every field of its config."""
    options.parser.print_help()
    print("\nEvery field of the config can be set as in --search.passes 3:\n")
    kind = TrainExperiment if options.verb == "train" else Experiment
    config = kind() if options.config is None else _load(options)
    with contextlib.suppress(SystemExit):
        tyro.cli(kind, default=config, args=["--help"], prog=f"evolq {options.verb} CONFIG")


def _reject(args: Sequence[str]) -> None:
    if args:
        raise UserError(f"unexpected argument '{args[0]}': a finished run keeps its config")


def _models_table() -> Table:
    headings = ("name", "parameters", "image", "patch", "width", "depth", "heads", "mean", "std")
    rows = [
        (*row[:-1], row.preprocessing.mean[0], row.preprocessing.std[0]) for row in model_rows()
    ]
    return row_table("models", headings, rows)
