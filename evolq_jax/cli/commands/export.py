"""`evolq export`."""

import argparse
from collections.abc import Iterator
from typing import get_args

from evolq_jax.cli.command import Call, Command
from evolq_jax.cli.configs import is_directory, of_run
from evolq_jax.cli.tables import row_table, score_rows
from evolq_jax.errors import UserError
from evolq_jax.integers.exported import Format
from evolq_jax.integers.onnx.build import Target
from evolq_jax.verbs.export import ExportResult, run_export


def run(call: Call) -> None:
    """Writes the files, and shows their sizes and scores."""
    options = call.options
    if not is_directory(options.config):
        wrong = f"'{options.config}' is no folder: " if options.config else ""
        raise UserError(f"{wrong}`evolq export` needs a run directory: evolq export RUN_DIR --format onnx")
    config = of_run(call, "data")
    with call.make_watcher() as watcher:
        result = run_export(
            options.config,
            options.format,
            out=options.out,
            target=options.target,
            allow_float=options.allow_float,
            config=config,
            watcher=watcher,
        )
    call.console.print(
        row_table(f"{options.config}: {result.network}", ("file", "MB", "smaller"), _files(result))
    )
    title = f"scores on {result.num_images} images"
    call.console.print(row_table(title, ("", *result.metrics), score_rows(result.metrics)))


def _files(result: ExportResult) -> Iterator[list[str]]:
    for kind, path in result.files.items():
        size = result.sizes[kind]
        yield [str(path), f"{size / 1e6:.2f}", f"{result.float32 / size:.1f} times"]


def add_options(parser: argparse.ArgumentParser) -> None:
    """What to write, and where."""
    parser.add_argument(
        "--format",
        nargs="+",
        choices=get_args(Format),
        default=["safetensors"],
        help="safetensors: packed integers for evolq_jax, which is always written; onnx: for onnxruntime and "
        "others; stablehlo: for JAX alone",
    )
    parser.add_argument("--out", metavar="FOLDER", help="where to write (default: RUN_DIR/exported)")
    parser.add_argument(
        "--target", choices=get_args(Target), default="onnxruntime", help="what an ONNX file is for"
    )
    allowed = "compute in float what ONNX has no integers for, and record it in the file"
    parser.add_argument("--allow-float", action="store_true", help=allowed)


COMMAND = Command(
    does="write a run's network as integers: packed, as ONNX or as StableHLO",
    run=run,
    takes="a run directory",
    field="--data.evaluation FOLDER",
    has_presets=False,
    add_options=add_options,
)
