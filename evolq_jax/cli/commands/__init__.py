"""The verbs of the command line, a file each; the order is that of `evolq --help`."""

from evolq_jax.cli.command import Command
from evolq_jax.cli.commands import (
    baseline,
    calibrate,
    classify,
    compare,
    doctor,
    draw,
    evaluate,
    export,
    info,
    landscape,
    models,
    pack,
    predict,
    search,
    train,
    verify,
)

COMMANDS: dict[str, Command] = {
    "search": search.COMMAND,
    "calibrate": calibrate.COMMAND,
    "baseline": baseline.COMMAND,
    "compare": compare.COMMAND,
    "landscape": landscape.COMMAND,
    "draw": draw.COMMAND,
    "evaluate": evaluate.COMMAND,
    "predict": predict.COMMAND,
    "export": export.COMMAND,
    "info": info.COMMAND,
    "verify": verify.COMMAND,
    "classify": classify.COMMAND,
    "train": train.COMMAND,
    "pack": pack.COMMAND,
    "models": models.COMMAND,
    "doctor": doctor.COMMAND,
}
