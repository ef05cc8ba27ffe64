"""The command line: `evolq VERB CONFIG [--field.name value ...]`."""

import argparse
import errno
import os
import sys
from collections.abc import Sequence

from rich.console import Console

from evolq_jax import interrupt
from evolq_jax.cli.arguments import check_config_is_first, make_parser
from evolq_jax.cli.command import Call, Command
from evolq_jax.cli.commands import COMMANDS
from evolq_jax.cli.configs import is_directory
from evolq_jax.cli.help import COMMON, print_common
from evolq_jax.cli.notes import notes_on_stderr
from evolq_jax.cli.override import print_fields, print_names
from evolq_jax.cli.progress import make_watcher
from evolq_jax.config.experiment import Experiment
from evolq_jax.config.load import load_config
from evolq_jax.config.plugins import load_plugin
from evolq_jax.config.presets import with_preset
from evolq_jax.devices import hosts
from evolq_jax.devices.ahead import abandon
from evolq_jax.devices.compile_cache import use_compile_cache
from evolq_jax.errors import UserError, suggestion
from evolq_jax.notes import say_once
from evolq_jax.paths import printable
from evolq_jax.runs.preemption import STATUS, Preempted


def main() -> None:
    """The entry point. A user's error is one line and status 2. A run that SIGTERM stops has status 75."""
    try:
        try:
            with notes_on_stderr():
                run(sys.argv[1:])
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()
    except BrokenPipeError:  # whoever reads has seen enough, as `head` has
        _write_no_more()
        sys.exit(0)
    except UserError as error:
        hosts.leave(f"evolq: error: {one_line(str(error))}", 2)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EIO, errno.EBADF) or error.filename is not None:
            raise
        _write_no_more()  # it came from printing: files that are written have names
        hosts.leave(f"evolq: error: cannot print the output ({error.strerror or error})", 2)
    except KeyboardInterrupt:
        hosts.leave(interrupt.line(), interrupt.STATUS)
    except Preempted as stopped:
        hosts.leave_together(f"evolq: {stopped}", STATUS)
    except Exception as error:
        if hosts.num_processes() == 1:
            raise
        hosts.leave_after(error)


def one_line(message: str, longest: int = 200) -> str:
    """A message in one line that commands no terminal: control characters written out, long words cut."""
    words = [word if len(word) <= longest else f"{word[:longest]}..." for word in message.split()]
    return printable(" ".join(words))


def _write_no_more() -> None:
    """Sends what is still to be printed nowhere, so that nothing fails at exit."""
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def run(args: Sequence[str]) -> None:
    """Runs one command.

    Raises:
      UserError: the user can mend the error.
    """
    verb = args[0] if args else ""
    if not verb.startswith("-") and verb not in COMMANDS:
        wrong = f"unknown verb '{verb}'{suggestion(verb, COMMANDS)}" if verb else "name what to do"
        raise UserError(f"{wrong} (one of {', '.join(COMMANDS)}; `evolq --help` has examples)")
    options, overrides = make_parser(COMMANDS).parse_known_args(args)
    check_config_is_first(args, options, overrides)
    _check_connected(options)
    for path in options.plugin:
        load_plugin(path)
    console = Console(markup=False, highlight=False, quiet=not hosts.is_first())
    if options.help or options.help_all:
        _print_help(options, console)
        return
    cache = use_compile_cache(options.compile_cache)
    if cache.warning:
        say_once(cache.warning)
    try:
        options.command.run(Call(options.verb, options, overrides, console, make_watcher))
    finally:
        abandon()


def _check_connected(options: argparse.Namespace) -> None:
    """Checks that `__main__` has connected the processes. After this module's imports it is too late."""
    place = hosts.check_place(options.coordinator, options.num_processes, options.process_id)
    if place is not None and place.num_processes != hosts.num_processes():
        raise UserError(
            "several processes are started as `evolq` or `python -m evolq_jax`, not through cli.main"
        )


def _print_help(options: argparse.Namespace, console: Console) -> None:
    """Prints the verb's own options, then the fields of its config: those set most, or all."""
    command: Command = options.command
    kind, config = command.config or Experiment, None
    if options.config is not None and not is_directory(options.config):
        config = load_config(options.config, kind)
        config = with_preset(config, options.preset)
    options.parser.print_help()
    print(f"\nEvery field of the config can be set as in {command.field}:\n", flush=True)
    if options.verb in COMMON and not options.help_all:
        print_common(console, config or kind(), options.verb)
        print(f"\n`evolq {options.verb} CONFIG --help-all` lists every field of the config.")
        return
    print_fields(kind, config, options.verb)
    if kind is Experiment:
        print_names()
