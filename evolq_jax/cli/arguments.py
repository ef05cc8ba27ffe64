"""The arguments of the command line, made from the records of its verbs."""

import argparse
from collections.abc import Mapping, Sequence
from typing import NoReturn

from evolq_jax.cli.command import Command
from evolq_jax.config.presets import PRESETS
from evolq_jax.devices.hosts import SEVERAL, add_place_options
from evolq_jax.errors import UserError
from evolq_jax.version import __version__

OPTIONS = (
    "--help",
    "--help-all",
    "--plugin",
    "--compile-cache",
    "--preset",
    "--run-dir",
    "--dry-run",
    "--resume",
    "--seeds",
    "--budget",
    "--vary",
    "--reference",
    "--milestones",
    "--top",
    "--csv",
    "--format",
    "--out",
    "--target",
    "--allow-float",
    "--coordinator",
    "--num-processes",
    "--process-id",
)  # beside the fields of the config
EPILOG = """\
examples:
  evolq search configs/digits_w2a8.py
  evolq search configs/vit_tiny_w4a8.py --dry-run
  evolq search configs/vit_tiny_w4a8.py --preset faithful
  evolq search configs/vit_tiny_w4a8.py --help    the main fields; set one so:
  evolq search configs/vit_tiny_w4a8.py --quant.weight-bits 3 --seed 1
  evolq search runs/vit_tiny_w4a8-001 --resume    after a kill
  evolq evaluate runs/vit_tiny_w4a8-001
  evolq evaluate runs/vit_tiny_w4a8-001 --data.evaluation OTHER_FOLDER
  evolq predict runs/vit_tiny_w4a8-001 picture.jpg FOLDER
  evolq export runs/digits_w2a8-001 --format onnx
  evolq verify runs/digits_w2a8-001/exported/quantized.onnx
  evolq pack VALIDATION_FOLDER --out packed/val --class-index SYNSETS.txt
  evolq landscape configs/digits_w2a8.py --landscape.kind plane
  evolq baseline configs/digits_w2a8.py --baseline.optimizer adam
  evolq compare configs/compare_digits.py --seeds 0 1 2 3 4
  evolq landscape runs/digits_w2a8-001 --landscape.direction between
  evolq draw runs/A-landscape-001 runs/B-landscape-001    on the same scales
"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (see `{self.prog} --help`)")


def make_parser(commands: Mapping[str, Command]) -> argparse.ArgumentParser:
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
    for verb, command in commands.items():
        takes_config = command.config is not None
        sub = verbs.add_parser(
            verb, help=command.does, description=command.does, add_help=not takes_config, allow_abbrev=False
        )
        sub.set_defaults(
            parser=sub, command=command, preset="default", config=None, help=False, help_all=False
        )
        sub.set_defaults(coordinator=None, num_processes=None, process_id=None)
        what = "a Python file that adds models, algorithms, fitness terms and the like (docs/extending.md)"
        sub.add_argument("--plugin", action="append", default=[], metavar="FILE", help=what)
        kept = "where compiled programs are kept (default: the cache folder of this user), or off"
        sub.add_argument("--compile-cache", metavar="FOLDER", help=kept)
        if takes_config:
            _add_config(sub, verb, command)
        else:
            command.add_options(sub)
    return parser


def _add_config(parser: argparse.ArgumentParser, verb: str, command: Command) -> None:
    """What all verbs that take a config have."""
    name, count = ("configs", "*") if command.several else ("config", "?")
    parser.add_argument(name, nargs=count, metavar="CONFIG", help=command.takes)
    command.add_options(parser)
    shown = "show this and the fields of the config that people set most"
    parser.add_argument("-h", "--help", action="store_true", help=shown)
    parser.add_argument("--help-all", action="store_true", help="show this and all fields of the config")
    if command.has_presets:
        presets = (
            "settings that replace the config's. strong: outlier-aware ranges, then corrected weights (the "
            "best known, and what a config has that says nothing else); fast: these ranges, short search; "
            "thorough: these ranges, long search; plain: what a search does by itself; faithful: the "
            "released code's"
        )
        parser.add_argument("--preset", choices=[*PRESETS], default="default", help=presets)
    if command.writes:
        where = "where to write (default: the next free runs/NAME-NNN)"
        continued = "; an unfinished run there is continued" if command.continues else ""
        parser.add_argument("--run-dir", help=where + continued)
    if command.resumes:
        what = f"go on with the {verb} in the run directory CONFIG"
        parser.add_argument("--resume", action="store_true", help=what)
    if verb in SEVERAL:
        add_place_options(parser)
    if command.plans:
        parser.add_argument("--dry-run", action="store_true", help="print the plan and stop")


def check_config_is_first(args: Sequence[str], options: argparse.Namespace, overrides: list[str]) -> None:
    """Refuses fields before CONFIG, since argparse would take the first field's value for CONFIG.

    Raises:
      UserError: a field comes first, or the verb takes no config and so no fields.
    """
    if not overrides:
        return
    verb, command, first = options.verb, options.command, overrides[0]
    if command.config is None:
        raise UserError(f"`evolq {verb}` takes no argument '{first}'")
    given = options.configs if command.several else [options.config]
    if not given or given[0] is None or args.index(given[-1]) > args.index(first):
        raise UserError(f"'{first}' comes before {command.takes}: write evolq {verb} CONFIG {first} ...")
