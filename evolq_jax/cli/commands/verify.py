"""`evolq verify`."""

import argparse
from collections.abc import Iterator

from evolq_jax.cli.command import Call, Command
from evolq_jax.cli.tables import row_table
from evolq_jax.config.experiment import DataConfig
from evolq_jax.errors import UserError
from evolq_jax.verbs.verify import Verification, run_verify

HEADINGS = ("", "file", "floor", "may be", "")


def run(call: Call) -> None:
    """Compares, shows it, and fails where a criterion does."""
    options, data = call.options, None
    for name in ("num", "class_index"):
        if options.data is None and getattr(options, name) is not None:
            raise UserError(f"--{name.replace('_', '-')} is about the images of --data: name them too")
    if options.data is not None:
        data = DataConfig(
            evaluation=options.data, class_index=options.class_index, num_evaluation=options.num
        )
    with call.make_watcher() as watcher:
        result = run_verify(
            options.file, data=data, reference=options.reference, run_dir=options.run, watcher=watcher
        )
    title = f"{options.file} against {result.reference.name}, {result.num_images} images"
    call.console.print(row_table(title, HEADINGS, _rows(result)))
    for left_out in result.left_out:
        call.console.print(f"not compared: {left_out}")
    if not result.passed:
        failed = ", ".join(each.name for each in result.criteria if not each.passed)
        raise UserError(
            f"'{options.file}' does not compute what its integers say ({failed}): export it again"
        )


def _rows(result: Verification) -> Iterator[list[str]]:
    for each in result.criteria:
        floor = "" if each.floor is None else f"{each.floor:.4f}"
        bound = f"{'from' if each.at_least else 'to'} {each.bound:.4f}"
        yield [each.name, f"{each.found:.4f}", floor, bound, "passed" if each.passed else "FAILED"]


def add_options(parser: argparse.ArgumentParser) -> None:
    """The file, what to compare it with, and on which images."""
    parser.add_argument("file", metavar="FILE", help="what `evolq export` wrote")
    parser.add_argument(
        "--data", metavar="IMAGES", help="an image set (default: the run's evaluation images)"
    )
    parser.add_argument(
        "--class-index", metavar="FILE", help="file that lists the classes of a folder (default: no labels)"
    )
    parser.add_argument("--num", type=int, help="how many images of --data (default: all)")
    parser.add_argument("--run", metavar="RUN_DIR", help="the run of the file (default: where it lies)")
    what = "the same integers (default: the quantized.safetensors beside FILE)"
    parser.add_argument("--reference", metavar="FILE", help=what)


COMMAND = Command(
    does="run an exported file by its own runtime, and compare it with its integers",
    run=run,
    config=None,
    add_options=add_options,
)
