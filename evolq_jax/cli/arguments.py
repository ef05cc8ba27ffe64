"""The verbs of the command line and their options."""

import argparse
from collections.abc import Sequence
from typing import NoReturn

from evolq_jax.config.presets import PRESETS
from evolq_jax.devices.hosts import SEVERAL, add_place_options
from evolq_jax.errors import UserError
from evolq_jax.version import __version__

WHAT = {
    "evaluate": "a run directory or a config file",
    "landscape": "a run directory or a config file",
    "compare": "config files of experiments or comparisons",
}
EXAMPLES = {"train": "configs/train_digits.py", "compare": "configs/compare_digits.py"}
VERBS = {
    "search": "calibrate, search, and compare float, init and final on held-out images",
    "calibrate": "find the first scales, without a search",
    "baseline": "the same as search, but with gradient descent in place of the search",
    "compare": "run several methods with the same seeds and budget, and compare what they reach",
    "landscape": "scan how the loss changes around an init or a result: lines, planes, layers",
    "evaluate": "score a run, or the float network and the init of a config, on held-out images",
    "train": "train a small float network with a training config",
    "pack": "pack an image folder into a few files, to be read as tfds:OUT",
    "models": "list the models of the registry",
}
CONTINUED = ("search", "baseline", "landscape", "compare")
OPTIONS = (
    "--help",
    "--preset",
    "--run-dir",
    "--dry-run",
    "--resume",
    "--seeds",
    "--budget",
    "--reference",
    "--milestones",
    "--coordinator",
    "--num-processes",
    "--process-id",
)  # beside the fields of the config
EPILOG = """\
examples:
  evolq search configs/digits_w2a8.py
  evolq search configs/vit_tiny_w4a8.py --dry-run
  evolq search configs/vit_tiny_w4a8.py --preset faithful
  evolq search configs/vit_tiny_w4a8.py --help    all fields; set one so:
  evolq search configs/vit_tiny_w4a8.py --quant.weight-bits 3 --seed 1
  evolq search runs/vit_tiny_w4a8-001 --resume    after a kill
  evolq evaluate runs/vit_tiny_w4a8-001
  evolq pack VALIDATION_FOLDER --out packed/val --class-index SYNSETS.txt
  evolq landscape configs/digits_w2a8.py --landscape.kind plane
  evolq baseline configs/digits_w2a8.py --baseline.optimizer adam
  evolq compare configs/compare_digits.py --seeds 0 1 2 3 4
  evolq landscape runs/digits_w2a8-001 --landscape.direction between
"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (see `{self.prog} --help`)")


def make_parser() -> argparse.ArgumentParser:
    """The parser of the verbs and their own options. `override` parses the fields of the config."""
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
        what = WHAT.get(verb, "a config file")
        example = EXAMPLES.get(verb, "configs/digits_w2a8.py")
        sub.set_defaults(coordinator=None, num_processes=None, process_id=None)
        sub.set_defaults(parser=sub, what=what, example=example, preset="default", config=None, help=False)
        if verb == "pack":
            _add_pack_arguments(sub)
        if not takes_config:
            continue
        if verb == "compare":
            sub.add_argument("configs", nargs="*", metavar="CONFIG", help=what)
            _add_comparison_options(sub)
        else:
            sub.add_argument("config", nargs="?", metavar="CONFIG", help=what)
        sub.add_argument("-h", "--help", action="store_true", help="show this and all fields of the config")
        if verb != "train":
            presets = (
                "settings that replace the config's. faithful: the released code's; fast: outlier-aware "
                "ranges, short search; thorough: these ranges, long search; strong: these ranges, then "
                "corrected weights"
            )
            sub.add_argument("--preset", choices=[*PRESETS], default="default", help=presets)
        if verb in ("search", "calibrate", "baseline", "landscape", "compare"):
            where = "where to write (default: the next free runs/NAME-NNN)"
            continued = "; an unfinished run there is continued" if verb in CONTINUED else ""
            sub.add_argument("--run-dir", help=where + continued)
        if verb in ("search", "baseline"):
            sub.add_argument(
                "--resume", action="store_true", help=f"go on with the {verb} in the run directory CONFIG"
            )
        if verb in SEVERAL:
            add_place_options(sub)
        if verb in ("search", "landscape", "compare"):
            sub.add_argument("--dry-run", action="store_true", help="print the plan and stop")
    return parser


def _add_pack_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="FOLDER", help="images as <class>/<file>, or flat")
    parser.add_argument("--out", required=True, help="the new data set's folder")
    parser.add_argument(
        "--class-index", help="file with one class id per line, by index (default: no labels)"
    )


def _add_comparison_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--seeds", type=int, nargs="+", help="each method runs with each seed (default: 0 1 2)"
    )
    parser.add_argument("--budget", type=int, help="candidate-images per run (default: the first method's)")
    parser.add_argument("--milestones", type=int, help="parts of the budget; scales are scored after each")
    parser.add_argument("--reference", help="the method with which the others are compared")


def check_order(args: Sequence[str], options: argparse.Namespace, overrides: list[str]) -> None:
    """Refuses fields before CONFIG, since argparse would take the first field's value for CONFIG."""
    if not overrides or options.verb == "pack":
        return
    if options.verb == "models":
        raise UserError(f"`evolq models` takes no argument '{overrides[0]}'")
    given = options.configs if options.verb == "compare" else [options.config]
    if not given or given[0] is None or args.index(given[-1]) > args.index(overrides[0]):
        raise UserError(
            f"'{overrides[0]}' comes before {options.what}: "
            f"write evolq {options.verb} CONFIG {overrides[0]} ..."
        )
