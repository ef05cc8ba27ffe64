"""A run that a killed process left. It is continued only with the same config, inputs and versions."""

import json
import shlex
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from evolq_jax.config.absolute import absolute
from evolq_jax.config.experiment import Experiment
from evolq_jax.errors import UserError
from evolq_jax.interrupt import going_on
from evolq_jax.json_text import parse_object
from evolq_jax.notes import say_once
from evolq_jax.runs.config_json import from_json, to_json
from evolq_jax.runs.directory import CONFIG, RESULT, RunDirectory, begin_run, hold_directory
from evolq_jax.runs.provenance import Provenance, changes, lost_programs
from evolq_jax.trees import flatten


@dataclass(frozen=True)
class VerbFiles:
    """The files that a verb leaves in its directory."""

    verb: str  # for messages
    finished: str  # the file that is written last
    is_begun: Callable[[set[str]], bool]  # whether these files are those of an unfinished one
    resumes: bool = False  # whether the verb takes --resume
    suffix: str = ""  # after the experiment's name, in that of a new directory


@contextmanager
def continued_run(
    path: str | Path | None, config: Experiment, files: VerbFiles
) -> Generator[RunDirectory, None, None]:
    """A new directory, or that of an unfinished run with the same config, which is then continued.

    Raises:
      UserError: there is something else at that path, another process works there, or it cannot be written.
    """
    with (
        hold_directory(path, config.name + files.suffix) as run,
        going_on(_how_to_go_on(run, files, config)),
    ):
        names = run.names()
        if files.finished in names:
            raise UserError(f"'{path}' holds a finished {_kind(run, files)}; name another with --run-dir")
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


def _kind(run: RunDirectory, files: VerbFiles) -> str:
    """What the finished run of a directory is. Verbs share the names of files."""
    if not run.has(RESULT):
        return files.verb
    return str(parse_object(run.read(RESULT), f"'{run.path / RESULT}'").get("kind", files.verb))


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


def _how_to_go_on(run: RunDirectory, files: VerbFiles, config: Experiment) -> str:
    """What continues a stopped run, for people.

    `--resume` needs nothing but the directory. It does not do where the config holds functions or objects of
    Python, which `config.json` has by their names alone.
    """
    if not files.resumes:
        return same_command(run)
    try:
        complete = from_json(to_json(config), CONFIG) == config
    except UserError:
        complete = False
    if complete:
        plugins = "".join(f" --plugin {shlex.quote(plugin.path)}" for plugin in config.plugins)
        return f"go on with: evolq {files.verb} {shlex.quote(str(run.path))} --resume{plugins}"
    return same_command(run)


def same_command(run: RunDirectory) -> str:
    """How to go on with a verb that continues what it finds in its directory."""
    return f"the same command with --run-dir {shlex.quote(str(run.path))} goes on"


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
    if lost_programs(then, now):
        say_once(
            f"the programs that the {verb} in '{run.path}' began with are not kept here: on this device they "
            "may be compiled into others, and the result may differ in its last bits"
        )
