"""The command line: `evolq VERB CONFIG [--field.name value ...]`."""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from rich.console import Console
from rich.table import Table

from evolq_jax import __version__
from evolq_jax.config import PRESETS, Experiment, LandscapeConfig, load_config, with_preset
from evolq_jax.errors import UserError, suggestion
from evolq_jax.experiment.baseline import run_baseline
from evolq_jax.experiment.landscape.plan import plan_landscape
from evolq_jax.experiment.landscape.run import run_landscape
from evolq_jax.experiment.override import override, print_fields
from evolq_jax.experiment.pack import run_pack
from evolq_jax.experiment.plan import plan_search
from evolq_jax.experiment.run import run_calibrate, run_evaluate, run_search
from evolq_jax.experiment.run_directory import open_run
from evolq_jax.experiment.setup import list_models
from evolq_jax.experiment.train import TrainExperiment, run_training
from evolq_jax.report import duration, fact_table, jaggedness_table, make_watcher, result_table, row_table

VERBS = {
    "search": "calibrate, search, and compare float, init and final on held-out images",
    "calibrate": "find the first scales and write them",
    "baseline": "as search, with gradient descent in the place of the search",
    "landscape": "scan the loss over scale space around an init or a result: lines, planes, layers",
    "evaluate": "score a run, or a config's float network and init, on held-out images",
    "train": "train a small float network with a training config",
    "pack": "turn an image folder into a data set of few files, once, for tfds:OUT",
    "models": "list the models of the registry",
}
OPTIONS = ("--help", "--preset", "--run-dir", "--dry-run")  # beside the fields of the config
EPILOG = """\
examples:
  evolq search configs/digits_w2a8.py
  evolq search configs/vit_tiny_w4a8.py --dry-run
  evolq search configs/vit_tiny_w4a8.py --preset faithful
  evolq search configs/vit_tiny_w4a8.py --help    all fields, set like so:
  evolq search configs/vit_tiny_w4a8.py --quant.weight-bits 3 --seed 1
  evolq evaluate runs/vit_tiny_w4a8-001
  evolq pack VALIDATION_FOLDER --out packed/val --class-index SYNSETS.txt
  evolq landscape configs/digits_w2a8.py --landscape.kind plane
  evolq baseline configs/digits_w2a8.py --baseline.optimizer adam
  evolq landscape runs/digits_w2a8-001 --landscape.direction between
"""


def main() -> None:
    """The entry point: user errors are one line and status 2."""
    try:
        run(sys.argv[1:])
    except UserError as error:
        print(f"evolq: error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("evolq: interrupted", file=sys.stderr)
        sys.exit(130)


def run(args: Sequence[str]) -> None:
    """Runs one command.

    Raises:
      UserError: for whatever the user can mend.
    """
    verb = args[0] if args else ""
    if not verb.startswith("-") and verb not in VERBS:
        wrong = f"unknown verb '{verb}'{suggestion(verb, VERBS)}" if verb else "name what to do"
        raise UserError(f"{wrong} (one of {', '.join(VERBS)}; `evolq --help` has examples)")
    options, overrides = _make_parser().parse_known_args(args)
    _check_order(args, options, overrides)
    console = Console(markup=False, highlight=False)
    if options.help:
        _print_help(options)
    elif options.verb == "models":
        console.print(_models_table())
    elif options.verb == "pack":
        _pack(console, options, overrides)
    elif options.verb == "train":
        _train(console, options, overrides)
    elif options.verb == "evaluate":
        _evaluate(console, options, overrides)
    elif options.verb == "baseline":
        _baseline(console, options, overrides)
    elif options.verb == "landscape":
        _landscape(console, options, overrides)
    elif options.verb == "calibrate":
        _calibrate(console, options, overrides)
    else:
        _search(console, options, overrides)


def _pack(console: Console, options: argparse.Namespace, overrides: list[str]) -> None:
    if overrides:
        raise UserError(f"`evolq pack` takes no argument '{overrides[0]}'")
    with make_watcher() as watcher:
        summary = run_pack(options.folder, options.out, options.class_index, watcher)
    console.print(fact_table("packed", summary))


def _search(console: Console, options: argparse.Namespace, overrides: list[str]) -> None:
    config = _experiment(options, overrides)
    if options.dry_run:
        console.print(fact_table(f"plan of {config.name}", plan_search(config)))
        return
    with make_watcher() as watcher:
        result = run_search(config, options.run_dir, watcher)
    console.print(result_table(result))
    console.print(
        f"{result['evaluations']} evaluations in {duration(result['seconds_search'])}, "
        f"all in {duration(result['seconds'])}; everything is in {result['run_dir']}"
    )


def _calibrate(console: Console, options: argparse.Namespace, overrides: list[str]) -> None:
    config = _experiment(options, overrides)
    with make_watcher() as watcher:
        summary = run_calibrate(config, options.run_dir, watcher)
    console.print(fact_table(f"calibrated {config.name}", summary))


def _evaluate(console: Console, options: argparse.Namespace, overrides: list[str]) -> None:
    target = options.config
    if target is None or not Path(target).is_dir():
        target = _experiment(options, overrides)
    elif overrides or options.preset != "default":
        raise UserError(f"a run keeps its config, so '{(overrides or ['--preset'])[0]}' cannot be set on one")
    with make_watcher() as watcher:
        result = run_evaluate(target, watcher)
    console.print(result_table(result))


def _baseline(console: Console, options: argparse.Namespace, overrides: list[str]) -> None:
    config = _experiment(options, overrides)
    with make_watcher() as watcher:
        result = run_baseline(config, options.run_dir, watcher)
    console.print(result_table(result))
    spent = f"{result['candidate_images']:,} candidate-images of {result['budget']:,}"
    console.print(
        f"{result['steps']} steps of {result['optimizer']}, {spent} in "
        f"{duration(result['seconds_search'])}; everything is in {result['run_dir']}"
    )


def _landscape(console: Console, options: argparse.Namespace, overrides: list[str]) -> None:
    target, settings = options.config, None
    if target is None or not Path(target).is_dir():
        target = _experiment(options, overrides)
    else:
        settings = _landscape_of_run(target, options, overrides)
    if options.dry_run:
        console.print(fact_table("plan of a landscape", plan_landscape(target, settings)))
        return
    with make_watcher() as watcher:
        summary = run_landscape(target, settings, options.run_dir, watcher)
    console.print(jaggedness_table(summary))
    if summary["left_out"]:
        console.print(f"left out, since the images have no labels: {', '.join(summary['left_out'])}")
    if summary["reflected_share"]:
        console.print(
            f"up to {100 * summary['reflected_share']:.1f} % of the moved scales were reflected at zero; "
            "a smaller --landscape.epsilon keeps them positive"
        )
    console.print(f"all in {duration(summary['seconds'])}; everything is in {summary['run_dir']}")


def _landscape_of_run(target: str, options: argparse.Namespace, overrides: list[str]) -> LandscapeConfig:
    """A run keeps its config but for what concerns the scan."""
    others = [arg for arg in overrides if arg.startswith("--") and not arg.startswith("--landscape.")]
    if others or options.preset != "default":
        raise UserError(
            f"a run keeps its config, so '{(others or ['--preset'])[0]}' cannot be set on one; "
            "--landscape fields can"
        )
    config = open_run(target).config()
    return override(config, overrides, options.verb, OPTIONS).landscape


def _train(console: Console, options: argparse.Namespace, overrides: list[str]) -> None:
    config = override(load_config(_config_file(options), TrainExperiment), overrides, options.verb, OPTIONS)
    command = shlex.join(["evolq", "train", options.config, *overrides])
    with make_watcher() as watcher:
        trained = run_training(config, watcher.stage("training"), command)
    console.print(f"top-1 {100 * trained.top1:.1f} % on {trained.num_test} images; wrote {trained.path}")


def _experiment(options: argparse.Namespace, overrides: list[str]) -> Experiment:
    """The config of a command line; fields given there hold against the preset's."""
    config = override(load_config(_config_file(options)), overrides, options.verb, OPTIONS)
    if options.preset == "default":
        return config
    return override(with_preset(config, options.preset), overrides, options.verb)


def _config_file(options: argparse.Namespace) -> str:
    if options.config is None:
        raise UserError(
            f"`evolq {options.verb}` needs {options.what}, as in: evolq {options.verb} {options.example}"
        )
    return options.config


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (see `{self.prog} --help`)")


def _make_parser() -> argparse.ArgumentParser:
    """Verbs and their own options; fields of the config are left to `override`."""
    parser = _Parser(
        prog="evolq",
        description="Post-training quantization by evolutionary search over quantization scales.",
        allow_abbrev=False,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"evolq_jax {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for verb, text in VERBS.items():
        takes_config = verb not in ("models", "pack")
        sub = verbs.add_parser(
            verb, help=text, description=text, add_help=not takes_config, allow_abbrev=False
        )
        what = "a run directory or a config file" if verb in ("evaluate", "landscape") else "a config file"
        example = "configs/train_digits.py" if verb == "train" else "configs/digits_w2a8.py"
        sub.set_defaults(parser=sub, what=what, example=example, preset="default", config=None, help=False)
        if verb == "pack":
            sub.add_argument("folder", metavar="FOLDER", help="images as <class>/<file>, or flat")
            sub.add_argument("--out", required=True, help="the data set's folder, to be created")
            sub.add_argument("--class-index", help="a class id a line in index order (default: no labels)")
        if not takes_config:
            continue
        sub.add_argument("config", nargs="?", metavar="CONFIG", help=what)
        sub.add_argument("-h", "--help", action="store_true", help="show this and every field of the config")
        if verb != "train":
            presets = (
                "settings put over the config's: the released code's (faithful), outlier-aware (fast), "
                "these and corrected weights (strong)"
            )
            sub.add_argument("--preset", choices=[*PRESETS], default="default", help=presets)
        if verb in ("search", "calibrate", "baseline", "landscape"):
            where = "where to write (default: the next free runs/NAME-NNN)"
            continued = "; an unfinished scan there is continued" if verb == "landscape" else ""
            sub.add_argument("--run-dir", help=where + continued)
        if verb in ("search", "landscape"):
            sub.add_argument("--dry-run", action="store_true", help="print the plan and stop")
    return parser


def _check_order(args: Sequence[str], options: argparse.Namespace, overrides: list[str]) -> None:
    """Without this, argparse would take the first field's value for CONFIG."""
    if not overrides or options.verb == "pack":
        return
    if options.verb == "models":
        raise UserError(f"`evolq models` takes no argument '{overrides[0]}'")
    if options.config is None or args.index(options.config) > args.index(overrides[0]):
        raise UserError(
            f"'{overrides[0]}' comes before {options.what}: "
            f"write evolq {options.verb} CONFIG {overrides[0]} ..."
        )


def _print_help(options: argparse.Namespace) -> None:
    """The verb's own options, then every field of its config."""
    kind = TrainExperiment if options.verb == "train" else Experiment
    config = None
    if options.config is not None and not Path(options.config).is_dir():
        config = load_config(options.config, kind)
        config = with_preset(config, options.preset)
    options.parser.print_help()
    field = "--train.epochs 3" if options.verb == "train" else "--search.passes 3"
    print(f"\nEvery field of the config can be set as in {field}:\n", flush=True)
    print_fields(kind, config, options.verb)


def _models_table() -> Table:
    headings = ("name", "M params", "image", "patch", "width", "depth", "heads", "weights")
    rows = [
        (
            model["name"],
            round(model["num_params"] / 1e6, 1),
            *(model[size] or "-" for size in ("image_size", "patch_size", "width", "depth", "num_heads")),
            "included" if model["weights_included"] else "",
        )
        for model in list_models()
    ]
    return row_table("models", headings, rows)
