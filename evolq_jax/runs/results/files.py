"""Results in files: `result.json`, `landscape.json`, `comparison.json`."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, overload

from evolq_jax.config.experiment import Experiment
from evolq_jax.errors import UserError
from evolq_jax.paths import user_path
from evolq_jax.runs.directory import COMPARISON, LANDSCAPE, RESULT, RunDirectory, open_run
from evolq_jax.runs.results.comparison import ComparisonResult
from evolq_jax.runs.results.landscape import LandscapeResult
from evolq_jax.runs.results.networks import BaselineResult, SearchResult
from evolq_jax.runs.results.older import in_todays_form
from evolq_jax.runs.typed_json import from_plain, to_plain
from evolq_jax.runs.unfinished import difference

Result = SearchResult | BaselineResult | LandscapeResult | ComparisonResult
R = TypeVar("R", bound=Result)

FILES: dict[type[Result], str] = {
    SearchResult: RESULT,
    BaselineResult: RESULT,
    LandscapeResult: LANDSCAPE,
    ComparisonResult: COMPARISON,
}


def write_result(run: RunDirectory, result: Result) -> None:
    """Writes a result. Its file says that the run has finished.

    Raises:
      UserError: it cannot be written.
    """
    content = to_plain(result)
    del content["run_dir"]  # directories are moved
    run.write_json(FILES[type(result)], {"kind": result.kind, **content})


@overload
def read_result(run_dir: str | Path) -> Result: ...
@overload
def read_result(run_dir: str | Path, kind: type[R]) -> R: ...
def read_result(run_dir: str | Path, kind: type[Result] | None = None) -> Result:
    """The result of a finished run.

    Args:
      run_dir: the directory of a search, a baseline, a landscape or a comparison.
      kind: the type that the result must have. None: any.

    Raises:
      UserError: there is no run, it has not finished, or it is of another kind; or its file is damaged, or
        has a version that cannot be read.
    """
    run = RunDirectory(user_path(run_dir, "run directory"))
    names = tuple(dict.fromkeys(FILES.values())) if kind is None else (FILES[kind],)
    name = next(filter(run.has, names), None)
    if name is None:
        open_run(run_dir)
        raise UserError(f"run '{run_dir}' has no {names[0]}: it has not finished")
    content, where = _content(run, name), f"'{run.path / name}'"
    found = next((each for each in FILES if each.kind == content["kind"] and FILES[each] == name), None)
    if found is None:
        raise UserError(
            f"{where} has the unknown kind '{content['kind']}': read it with the version that wrote it"
        )
    if kind is not None and kind is not found:
        raise UserError(
            f"'{run_dir}' holds another verb's result, not a {kind.kind}'s: name another directory"
        )
    return from_plain({**content, "run_dir": str(run_dir)}, found, where, f"{found.kind}'s result")


def _content(run: RunDirectory, name: str) -> dict[str, Any]:
    path = run.path / name
    try:
        content = json.loads(run.read(name))
    except json.JSONDecodeError as error:
        raise UserError(f"'{path}' is damaged ({error})") from error
    if not isinstance(content, dict):
        raise UserError(f"'{path}' is damaged (no JSON object)")
    return in_todays_form(content, path)


def finished_result(config: Experiment, run_dir: str | Path, kind: type[R]) -> R | None:
    """The result of a config's run in this directory. None: the run has not finished, or not begun.

    Raises:
      UserError: as `read_result`; or the run has another config.
    """
    run = RunDirectory(user_path(run_dir, "run directory"))
    if not run.has(FILES[kind]):
        return None
    result, other = read_result(run_dir, kind), difference(run.config(), config)
    if other:
        raise UserError(f"'{run_dir}' holds a finished {kind.kind} of another config: {other}")
    return result


def check_fingerprints(run: RunDirectory, now: Mapping[str, str]) -> None:
    """Compares weights and images with those of a finished run. Others would give other numbers.

    Raises:
      UserError: one of them has changed.
    """
    if not run.has(RESULT):
        return
    result = read_result(run.path)
    then = {} if isinstance(result, ComparisonResult) else result.provenance.fingerprints
    for what, value in now.items():
        if then.get(what, value) != value:
            raise UserError(
                f"the {what} of run '{run.path}' have changed since: bring them back, or search again"
            )
