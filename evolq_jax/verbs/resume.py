"""Runs that may have begun already: going on with one, or having its result either way."""

from pathlib import Path
from typing import Any

from evolq_jax.config.experiment import Experiment
from evolq_jax.errors import UserError
from evolq_jax.pipeline.watcher import Watcher
from evolq_jax.runs.directory import RESULT, RunDirectory, open_run
from evolq_jax.runs.result import read_result
from evolq_jax.runs.resume import difference
from evolq_jax.verbs.baseline import run_baseline
from evolq_jax.verbs.search import run_search


def resume_search(run_dir: str | Path, watcher: Watcher | None = None) -> dict[str, Any]:
    """Goes on with the search of a run directory, as its config says; see `run_search`."""
    return run_search(open_run(run_dir).config(), run_dir, watcher)


def resume_baseline(run_dir: str | Path, watcher: Watcher | None = None) -> dict[str, Any]:
    """Goes on with the baseline of a run directory, as its config says; see `run_baseline`."""
    return run_baseline(open_run(run_dir).config(), run_dir, watcher)


def ensure_search(config: Experiment, run_dir: str | Path, watcher: Watcher | None = None) -> dict[str, Any]:
    """The result of a config's search in this directory: read where it has finished, else run or continued.

    Raises:
      UserError: as `run_search`; or the directory holds a finished run of another config or verb.
    """
    finished = _finished(config, run_dir, "search", mark="moves")
    return finished or run_search(config, run_dir, watcher)


def ensure_baseline(
    config: Experiment, run_dir: str | Path, watcher: Watcher | None = None
) -> dict[str, Any]:
    """The result of a config's baseline in this directory: read where it has finished, else run or continued.

    Raises:
      UserError: as `run_baseline`; or the directory holds a finished run of another config or verb.
    """
    finished = _finished(config, run_dir, "baseline", mark="optimizer")
    return finished or run_baseline(config, run_dir, watcher)


def _finished(config: Experiment, run_dir: str | Path, verb: str, mark: str) -> dict[str, Any] | None:
    """The result of a finished run; `mark` is what only this verb's result has."""
    run = RunDirectory(Path(run_dir))
    if not run.has(RESULT):
        return None
    result, other = read_result(run_dir), difference(run.config(), config)
    if mark not in result:
        raise UserError(f"'{run_dir}' holds another verb's result, not a {verb}'s: name another directory")
    if other:
        raise UserError(f"'{run_dir}' holds a finished {verb} of another config: {other}")
    return result | {"run_dir": str(run.path)}
