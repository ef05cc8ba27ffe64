"""`evolq classify`."""

import argparse
from pathlib import Path

from evolq_jax.cli.command import Call, Command
from evolq_jax.cli.commands import predict
from evolq_jax.cli.commands.predict import print_predictions
from evolq_jax.verbs.classify import run_classify


def run(call: Call) -> None:
    """Classifies, and shows a table or writes CSV."""
    options = call.options
    with call.make_watcher() as watcher:
        result = run_classify(options.file, options.images, top=options.top, watcher=watcher)
    print_predictions(call, f"{Path(options.file).name}: {result.network}", result)


def add_options(parser: argparse.ArgumentParser) -> None:
    """The file, the pictures, and how to show their classes."""
    parser.add_argument("file", metavar="FILE", help="what `evolq export` wrote")
    predict.add_options(parser)


COMMAND = Command(
    does="classify pictures with an exported file, by its own runtime",
    run=run,
    config=None,
    add_options=add_options,
)
