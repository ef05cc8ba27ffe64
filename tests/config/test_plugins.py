"""Plug-ins: what a file defines is known by name, in this process and on the run's record."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from evolq_jax.config import plugins
from evolq_jax.config.experiment import Experiment
from evolq_jax.config.named import KINDS
from evolq_jax.config.plugins import load_plugin, loaded_plugins
from evolq_jax.errors import UserError
from evolq_jax.models.registry import REGISTRY
from evolq_jax.runs.config_json import from_json, to_json
from evolq_jax.search.config import SearchConfig

PLUGIN = '''\
from dataclasses import replace

import jax.numpy as jnp
from evosax.algorithms import CMA_ES, SNES

from evolq_jax.calibration.link import NetworkLink
from evolq_jax.models.registry import get_entry
from evolq_jax.objective.terms import Term
from evolq_jax.quant.observers.base import Observer


class Bold(SNES):
    """Steps twice as long."""


def error(student, teacher):
    """The mean absolute error."""
    return jnp.mean(jnp.abs(student - teacher))


def helper(x):
    return x


def inner(student, teacher):
    return error(student, teacher) ** 2


SQUARED = Term("squared", "squares the error", inner)
WIDE = Observer("wide", "takes all")
NOTHING = NetworkLink("nothing", "does nothing", lambda calibration, state, settings: state)
MINE = replace(get_entry("vit_digits"), name="my_digits")
'''


@pytest.fixture(autouse=True)
def forgotten(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a test loads is not there for the next."""
    monkeypatch.setattr(plugins, "_loaded", {})
    lists = [REGISTRY, *(known.things for known in KINDS)]
    before = [dict(each) for each in lists]
    yield
    for each, was in zip(lists, before, strict=True):
        each.clear()
        each.update(was)


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(PLUGIN)
    return path


def names() -> dict[str, set[str]]:
    return {known.noun: set(known.things) for known in KINDS} | {"model": set(REGISTRY)}


def test_what_a_file_defines_is_known_by_name(plugin: Path) -> None:
    before = names()
    load_plugin(plugin)
    added = {noun: found - before[noun] for noun, found in names().items()}
    assert {noun: found for noun, found in added.items() if found} == {
        "search algorithm": {"Bold"},
        "fitness term": {"error", "squared"},
        "observer": {"wide"},
        "link": {"nothing"},
        "model": {"my_digits"},
    }
    search = SearchConfig(algorithm="Bold", fitness="kl + 0.5*error")
    assert search.algorithm == "Bold"
    assert load_plugin(plugin) == loaded_plugins()[0]  # again: nothing happens


def test_a_run_records_its_plugins_and_wants_them_again(
    plugin: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_plugin(plugin)
    config = Experiment(search=SearchConfig(algorithm="Bold"))
    assert [each.path for each in config.plugins] == [str(plugin)]
    recorded = to_json(config)
    assert from_json(recorded, "run") == config
    monkeypatch.setattr(plugins, "_loaded", {})
    with pytest.raises(UserError, match=f"run: the plug-in {plugin} was loaded for this run: .* --plugin "):
        from_json(recorded, "run")
    plugin.write_text("from evosax.algorithms import SNES\nclass Other(SNES):\n    pass\n")
    load_plugin(plugin)
    with pytest.raises(UserError, match="has changed since the run began"):
        from_json(recorded, "run")
    edited = json.loads(to_json(replace(config, plugins=()))) | {"plugins": [{"path": 1}]}
    with pytest.raises(UserError, match="plugins"):
        from_json(json.dumps(edited), "run")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("1 / 0", r"mine.py, line 1: ZeroDivisionError: division by zero"),
        ("raise SystemExit(0)", "line 1: SystemExit: 0"),
        ("x = (", "SyntaxError"),
        ("from evosax.algorithms import SNES", "defines no model, algorithm, fitness term, link"),
        ("def kl(student, teacher):\n    return 0.0\n", "there is a fitness term 'kl' already; rename"),
        ("from evosax.algorithms import SNES\nclass CMA_ES(SNES):\n    pass\n", "algorithm 'CMA_ES' already"),
    ],
)
def test_what_is_no_plugin_is_refused(plugin: Path, content: str, message: str) -> None:
    plugin.write_text(content)
    before = names()
    with pytest.raises(UserError, match=message):
        load_plugin(plugin)
    assert names() == before
    assert loaded_plugins() == ()
    with pytest.raises(UserError, match="No such file"):
        load_plugin(plugin.with_name("missing.py"))
