"""Searches that may have begun already: going on with one, or having its result either way."""

from pathlib import Path
from typing import Any

from evolq_jax.config import Experiment
from evolq_jax.errors import UserError
from evolq_jax.experiment.continued import difference
from evolq_jax.experiment.result import read_result
from evolq_jax.experiment.run import run_search
from evolq_jax.experiment.run_directory import RESULT, RunDirectory, open_run
from evolq_jax.experiment.watch import Watcher


def resume_search(run_dir: str | Path, watcher: Watcher | None = None) -> dict[str, Any]:
    """Goes on with the search of a run directory, as its config says; see `run_search`."""
    return run_search(open_run(run_dir).config(), run_dir, watcher)


def ensure_search(config: Experiment, run_dir: str | Path, watcher: Watcher | None = None) -> dict[str, Any]:
    """The result of a config's search in this directory: read where it has finished, else run or continued.

    Raises:
      UserError: as `run_search`; or the directory holds a finished run of another config or verb.
    """
    run = RunDirectory(Path(run_dir))
    if not run.has(RESULT):
        return run_search(config, run_dir, watcher)
    result, other = read_result(run_dir), difference(run.config(), config)
    if "moves" not in result:
        raise UserError(f"'{run_dir}' holds another verb's result, not a search's: name another directory")
    if other:
        raise UserError(f"'{run_dir}' holds a finished search of another config: {other}")
    return result | {"run_dir": str(run.path)}
