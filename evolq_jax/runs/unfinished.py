"""A run that a killed process left. It is continued only with the same config, inputs and versions."""

import json
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from evolq_jax.config.absolute import absolute
from evolq_jax.config.experiment import Experiment
from evolq_jax.errors import UserError
from evolq_jax.runs.config_json import to_json
from evolq_jax.runs.directory import RunDirectory, begin_run, hold_directory
from evolq_jax.runs.provenance import Provenance, changes
from evolq_jax.trees import flatten


@dataclass(frozen=True)
class VerbFiles:
    """The files that a verb leaves in its directory."""

    verb: str  # for messages
    finished: str  # the file that is written last
    is_begun: Callable[[set[str]], bool]  # whether these files are those of an unfinished one


@contextmanager
def continued_run(
    path: str | Path | None, config: Experiment, files: VerbFiles
) -> Generator[RunDirectory, None, None]:
    """A new directory, or that of an unfinished run with the same config, which is then continued.

    Raises:
      UserError: there is something else at that path, another process works there, or it cannot be written.
    """
    with hold_directory(path, config.name) as run:
        names = run.names()
        if files.finished in names:
            raise UserError(f"'{path}' holds a finished {files.verb}; name another with --run-dir")
        if not files.is_begun(names):
            with begin_run(run, config):
                yield run
            return
        other = difference(run.config(), config)
        if other:
            raise UserError(
                f"'{path}' holds an unfinished {files.verb} of another config ({other}): give it the same to "
                "continue, or name another with --run-dir"
            )
        yield run


def difference(then: Experiment, now: Experiment) -> str:
    """The first field in which two configs differ, and how. '': both give the same run."""
    fields = [
        flatten(json.loads(to_json(absolute(replace(config, checkpoint=now.checkpoint)))))
        for config in (then, now)
    ]
    for name, value in fields[1].items():
        if value != fields[0].get(name):
            return f"{name.replace('/', '.')} was {fields[0].get(name)} and is {value}"
    return ""


def check_unchanged(run: RunDirectory, verb: str, then: Provenance, now: Provenance) -> None:
    """Compares the provenance of a continued run with that of its beginning.

    Raises:
      UserError: something has changed.
    """
    changed = changes(then, now)
    if changed:
        raise UserError(
            f"the {verb} in '{run.path}' cannot be continued, since this has changed: "
            f"{', '.join(changed)}; name another with --run-dir"
        )
