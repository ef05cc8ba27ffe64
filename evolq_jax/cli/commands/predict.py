"""`evolq predict`."""

import argparse
import csv
import sys
from collections.abc import Iterator

from evolq_jax.cli.command import Call, Command
from evolq_jax.cli.configs import is_directory, of_run
from evolq_jax.cli.tables import row_table
from evolq_jax.errors import UserError
from evolq_jax.verbs.predict import PredictionResult, run_predict

HEADINGS = ("image", "class", "name", "probability", "float")


def run(call: Call) -> None:
    """Classifies, and shows a table or writes CSV."""
    options = call.options
    if not is_directory(options.config):
        raise UserError("`evolq predict` needs a run directory and pictures: evolq predict RUN_DIR IMAGE ...")
    config = of_run(call, "data")
    with call.make_watcher() as watcher:
        result = run_predict(options.config, options.images, top=options.top, config=config, watcher=watcher)
    print_predictions(call, f"{options.config}: {result.network}", result)


def print_predictions(call: Call, title: str, result: PredictionResult) -> None:
    """The classes of pictures, as a table or as CSV. Where the float network was asked, also its best."""
    asked = any(prediction.float_class is not None for prediction in result.predictions)
    width = len(HEADINGS) - (not asked)
    headings, rows = HEADINGS[:width], [row[:width] for row in _rows(result)]
    if call.options.csv:
        writer = csv.writer(sys.stdout)
        writer.writerow(headings)
        writer.writerows(rows)
    else:
        call.console.print(row_table(title, headings, rows))


def _rows(result: PredictionResult) -> Iterator[list[str]]:
    """A row for each class that is named. The last cell says where the float network's best is."""
    names = result.class_names
    for prediction in result.predictions:
        for number, probability in zip(prediction.classes, prediction.probabilities, strict=True):
            best = "best" if number == prediction.float_class else ""
            name = names[number] if names else ""
            yield [prediction.image, str(number), name, f"{probability:.4f}", best]


def add_options(parser: argparse.ArgumentParser) -> None:
    """The pictures, and how to show their classes."""
    parser.add_argument("images", nargs="*", metavar="IMAGE", help="a picture, or a folder of pictures")
    parser.add_argument("--top", type=int, default=5, metavar="K", help="name K classes (default: 5)")
    parser.add_argument("--csv", action="store_true", help="write CSV in place of a table")


COMMAND = Command(
    does="classify pictures with a run's quantized network, beside the float one",
    run=run,
    takes="a run directory",
    field="--data.class-index FILE",
    has_presets=False,
    add_options=add_options,
)
