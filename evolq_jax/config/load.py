"""Config files: Python files that define one `config`."""

from pathlib import Path
from typing import Any

from evolq_jax.config.experiment import Experiment
from evolq_jax.config.python_file import run_file
from evolq_jax.errors import UserError, suggestion
from evolq_jax.notes import say_once
from evolq_jax.paths import user_path

CONFIGS = Path(__file__).parents[1] / "configs"  # that evolq_jax brings along


def load_config(path: str | Path, *kinds: type) -> Any:
    """The `config` of a config file. It must be of one of `kinds`; by default an `Experiment`.

    Where there is no such file, `configs/NAME.py` and `NAME` mean the config that evolq_jax brings along.

    Raises:
      UserError: there is no such file, it does not run, or its `config` is of another kind.
    """
    path = _packaged(user_path(path, "config file"))
    if not path.is_file():
        siblings = [str(p) for p in sorted(path.parent.glob("*.py"))] if path.parent.is_dir() else []
        raise UserError(f"no config file at '{path}'{suggestion(str(path), siblings)}")
    if path.suffix != ".py":
        raise UserError(f"'{path}' is no config file: those are Python files, named *.py")
    config = run_file(path, f"config file '{path}'").get("config")
    kinds = kinds or (Experiment,)
    if not isinstance(config, kinds):
        calls = " or ".join(f"`config = {kind.__name__}(...)`" for kind in kinds)
        raise UserError(f"config file '{path}' defines no {calls}")
    return config


def _packaged(path: Path) -> Path:
    """The config of evolq_jax that a path means, if there is nothing at the path; otherwise the path."""
    own = CONFIGS / f"{path.stem}.py"
    means_own = path.parent.name == CONFIGS.name or (path.name == path.stem and path.parent == Path())
    if path.exists() or not means_own or not own.is_file():
        return path
    say_once(f"no config file at '{path}': taking evolq_jax's own, {own}")
    return own
