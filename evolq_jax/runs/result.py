"""What a run's `result.json` says beside the scores: what went in, and on what it ran."""

import json
from pathlib import Path
from typing import Any

from evolq_jax.config.experiment import Experiment
from evolq_jax.errors import UserError
from evolq_jax.runs.directory import RESULT, RunDirectory, open_run
from evolq_jax.runs.unfinished import difference


def read_result(run_dir: str | Path) -> dict[str, Any]:
    """A finished run's `result.json`.

    Raises:
      UserError: it is no run, has not finished, or the file is damaged.
    """
    run = open_run(run_dir)
    if not run.has(RESULT):
        raise UserError(f"run '{run_dir}' has no {RESULT}: it has not finished")
    return _parse(run)


def check_fingerprints(run: RunDirectory, now: dict[str, str]) -> None:
    """Holds weights and images against those a finished run had; others would give other numbers.

    Raises:
      UserError: one of them has changed.
    """
    if not run.has(RESULT):
        return
    for what, then in _parse(run).get("fingerprints", {}).items():
        if now.get(what, then) != then:
            raise UserError(
                f"the {what} of run '{run.path}' have changed since: bring them back, or search again"
            )


def _parse(run: RunDirectory) -> dict[str, Any]:
    try:
        return json.loads(run.read(RESULT))
    except json.JSONDecodeError as error:
        raise UserError(f"'{run.path / RESULT}' is damaged ({error})") from error


def finished_result(config: Experiment, run_dir: str | Path, verb: str, mark: str) -> dict[str, Any] | None:
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
