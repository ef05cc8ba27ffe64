"""`evolq pack`."""

import argparse
import shlex

from evolq_jax.cli.command import Call, Command
from evolq_jax.cli.tables import fact_table, facts_of
from evolq_jax.verbs.pack import run_pack


def run(call: Call) -> None:
    """Packs."""
    options = call.options
    with call.make_watcher() as watcher:
        packed = run_pack(options.folder, options.out, options.class_index, watcher)
    call.console.print(fact_table("packed", facts_of(packed) | {"source": shlex.quote(packed.source)}))


def add_options(parser: argparse.ArgumentParser) -> None:
    """The folder, and where it goes."""
    parser.add_argument("folder", metavar="FOLDER", help="images as <class>/<file>, or flat")
    parser.add_argument("--out", required=True, help="the new data set's folder")
    parser.add_argument("--class-index", help="file that lists the classes by index (default: no labels)")


COMMAND = Command(
    does="pack an image folder into a few files, to be read as tfds:OUT",
    run=run,
    config=None,
    add_options=add_options,
)
