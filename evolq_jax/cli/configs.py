"""The config that a command line names, with the preset and the fields that it sets."""

import re
import shlex
from collections.abc import Callable
from typing import TypeVar

from evolq_jax.cli.arguments import OPTIONS
from evolq_jax.cli.command import Call, Command
from evolq_jax.cli.override import override
from evolq_jax.config.experiment import Experiment
from evolq_jax.config.load import load_config
from evolq_jax.config.presets import with_preset
from evolq_jax.errors import UserError
from evolq_jax.paths import user_path
from evolq_jax.pipeline.watcher import Watcher
from evolq_jax.runs.directory import CONFIG, open_run

Result = TypeVar("Result")


def experiment(call: Call) -> Experiment:
    """The experiment of a command line. Fields on the command line have priority over the preset.

    Raises:
      UserError: no config file is named, or it or a field is wrong.
    """
    return changed(load_config(config_file(call)), call)


def changed(config: Experiment, call: Call) -> Experiment:
    """The experiment under the command line's preset and with its fields.

    Raises:
      UserError: a field is unknown, or a value is wrong.
    """
    config = override(config, call.overrides, call.verb, OPTIONS)
    if call.options.preset == "default":
        return config
    return override(with_preset(config, call.options.preset), call.overrides, call.verb)


def config_file(call: Call) -> str:
    """The path that the command line names.

    Raises:
      UserError: it names none, or a run directory where `--resume` is missing.
    """
    command: Command = call.options.command
    path = call.options.config
    if command.resumes and user_path(path or "", "config file").joinpath(CONFIG).is_file():
        again = f"evolq {call.verb} {shlex.quote(path)} --resume"
        raise UserError(f"'{path}' is a run directory: {again} goes on with it")
    if path is None:
        raise needs_config(call)
    return path


def needs_config(call: Call) -> UserError:
    """Says that no config is named."""
    command: Command = call.options.command
    return UserError(f"`evolq {call.verb}` needs {command.takes}, as in: evolq {call.verb} {command.example}")


def is_directory(path: str | None) -> bool:
    """Whether a run directory is named, not a config file."""
    return path is not None and user_path(path, "config file").is_dir()


def of_run(call: Call, *sections: str) -> Experiment:
    """The config of a run's directory. It keeps its config, but for some sections, such as `data`.

    Raises:
      UserError: the command line sets another field, or a preset; or the directory is that of no run.
    """
    options = [arg for arg in call.overrides if arg.startswith("--")]
    others = [arg for arg in options if not re.match(rf"--(no[-_])?({'|'.join(sections)})[.]", arg)]
    wrong = [*others, *_preset(call), *call.overrides[: not options]]
    if wrong:
        can = " and ".join(f"--{section}" for section in sections)
        raise UserError(f"a run keeps its config, so '{wrong[0]}' cannot be set on one; {can} fields can")
    return override(open_run(call.options.config).config(), call.overrides, call.verb, OPTIONS)


def check_resume(call: Call) -> None:
    """Refuses other options: with `--resume` the run's directory decides everything.

    Raises:
      UserError: the command line sets something, or names no run directory.
    """
    options = call.options
    others = _preset(call)
    others += ["--run-dir"] * bool(options.run_dir) + ["--dry-run"] * getattr(options, "dry_run", False)
    if call.overrides or others:
        wrong = (call.overrides + others)[0]
        raise UserError(f"a run keeps its config, so '{wrong}' cannot be set with --resume")
    if not is_directory(options.config):
        raise UserError(
            f"--resume wants a run directory, not '{options.config}': "
            f"write evolq {call.verb} RUN_DIR --resume"
        )


def new_or_resumed(
    call: Call,
    begin: Callable[[Experiment, str | None, Watcher], Result],
    go_on: Callable[[str, Watcher], Result],
) -> Result:
    """The result of a verb that begins a run, or with `--resume` goes on with one.

    Raises:
      UserError: as `experiment` and `check_resume`, and as the verb.
    """
    if call.options.resume:
        check_resume(call)
        with call.make_watcher() as watcher:
            return go_on(call.options.config, watcher)
    config = experiment(call)
    with call.make_watcher() as watcher:
        return begin(config, call.options.run_dir, watcher)


def _preset(call: Call) -> list[str]:
    return ["--preset"] if getattr(call.options, "preset", "default") != "default" else []
