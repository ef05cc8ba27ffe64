"""A verb of the command line as one record, and what its function is given."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from rich.console import Console

from evolq_jax.cli.progress import LineWatcher, TerminalWatcher
from evolq_jax.config.experiment import Experiment


class Call(NamedTuple):
    """A command line, parsed."""

    verb: str
    options: argparse.Namespace  # the verb's own
    overrides: list[str]  # what sets fields of the config
    console: Console  # for what comes out
    make_watcher: Callable[[], TerminalWatcher | LineWatcher]  # for how it goes on


def no_options(parser: argparse.ArgumentParser) -> None:
    """For a verb that has no options of its own."""
    del parser


@dataclass(frozen=True, kw_only=True)
class Command:
    """A verb of the command line.

    Attributes:
      does: for `evolq --help`.
      run: does it, and shows what came out.
      config: the type of its config. None: it takes no config.
      takes: what stands in the place of CONFIG.
      several: it takes several configs, as `options.configs`.
      example: a config file to try it with.
      field: a field to set, for `--help`.
      has_presets: it takes `--preset`.
      writes: it takes `--run-dir`.
      continues: it goes on with an unfinished run in this directory.
      resumes: it takes `--resume`.
      plans: it takes `--dry-run`.
      add_options: adds its own arguments and options.
    """

    does: str
    run: Callable[[Call], None]
    config: type | None = Experiment
    takes: str = "a config file"
    several: bool = False
    example: str = "configs/digits_w2a8.py"
    field: str = "--search.passes 3"
    has_presets: bool = True
    writes: bool = False
    continues: bool = False
    resumes: bool = False
    plans: bool = False
    add_options: Callable[[argparse.ArgumentParser], None] = no_options
