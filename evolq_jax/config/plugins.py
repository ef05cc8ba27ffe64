"""Plug-ins: Python files of a user that add models, algorithms, fitness terms and the like, by name.

A run records its plug-ins, by path and content. It does not choose code to run, though: whoever goes on with
a run names its plug-ins again.
"""

import hashlib
import inspect
import shlex
from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evosax.algorithms.base import EvolutionaryAlgorithm

from evolq_jax.config.named import KINDS
from evolq_jax.config.python_file import run_file
from evolq_jax.errors import UserError
from evolq_jax.models.registry import REGISTRY, Entry
from evolq_jax.objective.terms import Term, as_term
from evolq_jax.search.algorithms.menu import find_algorithm

_MODULE = "evolq_plugin"
_TERM = ["student", "teacher"]  # the arguments of a function that is a fitness term


@dataclass(frozen=True)
class Plugin:
    """A plug-in that this process has loaded, or that a run was made with."""

    path: str  # absolute
    sha256: str  # of its content


_loaded: dict[str, Plugin] = {}  # by content


def loaded_plugins() -> tuple[Plugin, ...]:
    """The plug-ins of this process, in the order in which they were loaded."""
    return tuple(_loaded.values())


def load_plugin(path: str | Path) -> Plugin:
    """Runs a Python file, and makes what it defines known by name. A file that was loaded is not run again.

    - An `Entry` becomes a model of the registry.
    - A `Link`, `Term`, `Algorithm`, `Quantizer` or `Observer` becomes one of its kind.
    - A subclass of evosax's algorithms becomes a search algorithm, by the class's name.
    - A function of `(student, teacher)` becomes a fitness term, by the function's name.

    What the file only imports is left out, and so are names that begin with an underscore.

    Raises:
      UserError: there is no such file, it does not run, it defines nothing of these, or a name is taken.
    """
    path = Path(path).expanduser().absolute()
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"--plugin {path}: {error.strerror}") from error
    plugin = Plugin(str(path), hashlib.sha256(content).hexdigest())
    if plugin.sha256 in _loaded:
        return _loaded[plugin.sha256]
    things = list(_things(run_file(path, f"--plugin {path}", _MODULE)))
    if not things:
        raise UserError(
            f"--plugin {path} defines no model, algorithm, fitness term, link, quantizer or observer: see "
            "docs/extending.md"
        )
    names = [(noun, thing.name) for _, noun, thing in things]
    for known, noun, thing in things:
        if thing.name in known or names.count((noun, thing.name)) > 1:
            raise UserError(f"--plugin {path}: there is a {noun} '{thing.name}' already; rename this one")
    for known, _, thing in things:
        known[thing.name] = thing
    _loaded[plugin.sha256] = plugin
    return plugin


def check_loaded(recorded: tuple[Plugin, ...], where: str) -> None:
    """Refuses a run whose plug-ins this process has not loaded.

    Raises:
      UserError: one is missing, or has another content than when the run began.
    """
    for plugin in recorded:
        if plugin.sha256 not in _loaded:
            changed = any(plugin.path == other.path for other in loaded_plugins())
            named = f"--plugin {shlex.quote(plugin.path)}"
            wrong = "has changed since the run began" if changed else "was loaded for this run: name it again"
            raise UserError(f"{where}: the plug-in {plugin.path} {wrong}, with {named}")


def _things(found: dict[str, Any]) -> Iterator[tuple[MutableMapping[str, Any], str, Any]]:
    """What a plug-in defines: the list where it belongs, a word for its kind, and the thing."""
    kinds = {known.noun: known for known in KINDS}
    in_terms = [value.function for value in found.values() if isinstance(value, Term)]
    for name, value in found.items():
        own = getattr(value, "__module__", _MODULE) == _MODULE
        if name.startswith("_") or value in in_terms:
            continue
        if isinstance(value, Entry):
            yield REGISTRY, "model", value
        elif inspect.isclass(value) and issubclass(value, EvolutionaryAlgorithm) and own:
            yield kinds["search algorithm"].things, "search algorithm", find_algorithm(value)
        elif inspect.isfunction(value) and own and list(inspect.signature(value).parameters) == _TERM:
            yield kinds["fitness term"].things, "fitness term", as_term(value)
        else:
            for known in KINDS:
                thing: Any = value
                if isinstance(thing, known.kind) and known.things.get(thing.name) is not thing:
                    yield known.things, known.noun, thing
