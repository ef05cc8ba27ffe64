"""What the source may import and contain: layers, declared dependencies, nothing unpickled, small files."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent
MAX_LINES = 350

# One line per layer, lowest first: the layer, and the layers that it may import beside itself.
# `evolq_jax/x.py` and everything under `evolq_jax/x/` are layer x; "" is `evolq_jax/__init__.py`.
NUMERICS = "errors paths json_text typing trees named devices quant network objective"
ALGORITHMS = "calibration search gradient landscape training notes"
ROOMS = "data metrics models quantized integers config"
LAYERS = {
    "version": "",
    "interrupt": "",
    "errors": "",
    "paths": "errors",
    "json_text": "errors paths",
    "typing": "errors",
    "trees": "errors typing",
    "named": "errors",
    "figures": "errors",
    "devices": "interrupt errors paths typing",
    "notes": "errors paths devices",
    "data": "errors paths typing trees devices notes",
    "quant": "errors typing trees named",
    "network": "errors typing trees devices quant",
    "objective": "errors typing trees named quant network",
    "models": "errors paths json_text typing trees quant network",
    "metrics": "errors typing objective",
    "search": NUMERICS,
    "calibration": f"{NUMERICS} search",  # `clip` scores ranges as a search does
    "gradient": f"{NUMERICS} search",
    "landscape": f"{NUMERICS} search figures",
    "training": NUMERICS,
    "quantized": f"version {NUMERICS} {ALGORITHMS} models",
    "integers": f"version {NUMERICS} quantized",
    "config": f"{NUMERICS} {ALGORITHMS} data models",
    "pipeline": f"{NUMERICS} {ALGORITHMS} {ROOMS}",
    "runs": f"version interrupt notes {NUMERICS} data metrics landscape quantized config",
    "verbs": f"version interrupt figures {NUMERICS} {ALGORITHMS} {ROOMS} pipeline runs",
    "configs": "config",
    "cli": "version interrupt errors paths notes named devices typing metrics landscape training integers"
    " config pipeline runs verbs",
    "__main__": "interrupt errors devices cli",
    "": f"version {NUMERICS} {ALGORITHMS} {ROOMS} pipeline runs verbs",
}

LIBRARY = ("evolq_jax", "models", "configs")
OWN = {"evolq_jax", "tests", "benchmarks", "studies"}
# What the programs beside the library may import, of what is ours, beside evolq_jax.
PROGRAMS = {"benchmarks": ("benchmarks", "tests"), "studies": ("studies.common", "studies.timm")}
DISTRIBUTION = {
    "orbax": "orbax-checkpoint",
    "PIL": "pillow",
    "sklearn": "scikit-learn",
    "jaxlib": "jax",
    "yaml": "pyyaml",
}
UNPICKLERS = {"pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}


class Source(NamedTuple):
    path: str  # relative to the repository root, with /
    module: str
    tree: ast.Module
    num_lines: int


class Import(NamedTuple):
    target: str  # the module, or module.name of `from module import name`
    line: int
    deferred: bool  # inside a function, or under a module-level `if` or `try`


def parse(path: str, text: str) -> Source:
    parts = path.removesuffix(".py").removesuffix("/__init__").split("/")
    module = ".".join(["evolq_jax", *parts] if parts[0] in ("models", "configs") else parts)
    return Source(path, module, ast.parse(text, path), text.count("\n"))


def sources(*folders: str) -> list[Source]:
    """Every module under these top-level folders; `**` does not follow links (evolq_jax/models)."""
    paths = (path for folder in folders for path in sorted((ROOT / folder).glob("**/*.py")))
    return [parse(path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")) for path in paths]


def imports_of(source: Source) -> Iterator[Import]:
    at_import = set(source.tree.body)
    package = source.module.split(".")
    if not source.path.endswith("__init__.py"):
        package = package[:-1]
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno, node not in at_import)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                yield Import(f"{module}.{alias.name}", node.lineno, node not in at_import)


def layer_of(target: str) -> str:
    """`evolq_jax.quant.spec.Spec` -> `quant`; what `evolq_jax/__init__.py` exports is layer ""."""
    first = target.split(".")[1] if "." in target else ""
    found = (ROOT / "evolq_jax" / first).is_dir() or (ROOT / "evolq_jax" / f"{first}.py").is_file()
    return first if found or first in LAYERS else ""


def layer_problems(source: Source) -> list[str]:
    layer = ".".join(source.module.split(".")[1:2])
    if layer not in LAYERS:
        return [f"{source.path}: layer '{layer}' is unknown: add a line to LAYERS in tests/test_imports.py"]
    allowed = {layer, *LAYERS[layer].split()}
    return [
        f"{source.path}:{line}: '{layer}' may not import '{target}' (allowed: {', '.join(sorted(allowed))})"
        for target, line, _ in imports_of(source)
        if target.split(".")[0] == "evolq_jax" and layer_of(target) not in allowed
    ]


def program_problems(source: Source) -> list[str]:
    """A benchmark measures by itself; a study asks one question, and shares what several need in `common`."""
    allowed = ("evolq_jax", *PROGRAMS[source.path.split("/")[0]])
    return [
        f"{source.path}:{line}: may not import '{target}' (allowed: {', '.join(allowed)})"
        for target, line, _ in imports_of(source)
        if target.split(".")[0] in OWN and not f"{target}.".startswith(tuple(f"{name}." for name in allowed))
    ]


def declared() -> tuple[set[str], set[str], set[str]]:
    """The distributions of pyproject.toml: (dependencies, those of the extras for users, those of dev)."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

    def names(requirements: list[str]) -> set[str]:
        return {re.split(r"[^\w.-]", r)[0].lower().replace("_", "-") for r in requirements}

    extras = project["optional-dependencies"]
    users = [r for extra, requirements in extras.items() if extra != "dev" for r in requirements]
    return names(project["dependencies"]), names(users), names(extras["dev"])


def dependency_problems(source: Source) -> list[str]:
    core, users, dev = declared()
    library = source.path.split("/")[0] in LIBRARY
    problems: list[str] = []
    for target, line, deferred in imports_of(source):
        top = target.split(".")[0]
        if top in OWN or top in sys.stdlib_module_names:
            continue
        name = DISTRIBUTION.get(top, top).lower().replace("_", "-")
        if name not in core | users | (set() if library else dev):
            problems.append(f"{source.path}:{line}: '{top}' is not declared in pyproject.toml")
        elif library and name not in core and not deferred:
            problems.append(f"{source.path}:{line}: '{top}' is of an extra: import it where it is used")
    return problems


def content_problems(source: Source) -> list[str]:
    problems: list[str] = []
    if {"utils", "util"} & set(source.module.split(".")):
        problems.append(f"{source.path}: name it after what it does, not '{Path(source.path).stem}'")
    if source.num_lines > MAX_LINES:
        problems.append(f"{source.path}: {source.num_lines} lines, at most {MAX_LINES}")
    for target, line, _ in imports_of(source):
        if target.split(".")[0] in UNPICKLERS:
            problems.append(f"{source.path}:{line}: imports '{target}': nothing is unpickled here")
    for node in ast.walk(source.tree):
        if (
            isinstance(node, ast.keyword)
            and node.arg == "allow_pickle"
            and ast.unparse(node.value) != "False"
        ):
            problems.append(f"{source.path}:{node.lineno}: allow_pickle must be False")
    return problems


def test_imports_run_downwards() -> None:
    problems = [p for source in sources(*LIBRARY) for p in layer_problems(source)]
    assert not problems, "\n".join(problems)


def test_programs_stand_by_themselves() -> None:
    problems = [p for source in sources(*PROGRAMS) for p in program_problems(source)]
    assert not problems, "\n".join(problems)


def test_third_party_imports_are_declared() -> None:
    problems = [p for s in sources(*LIBRARY, "tests", *PROGRAMS) for p in dependency_problems(s)]
    assert not problems, "\n".join(problems)


def test_files_are_small_and_unpickle_nothing() -> None:
    problems = [p for s in sources(*LIBRARY, "tests", *PROGRAMS) for p in content_problems(s)]
    assert not problems, "\n".join(problems)


def test_layers_are_listed_lowest_first() -> None:
    order = list(LAYERS)
    for layer, allowed in LAYERS.items():
        assert all(order.index(a) < order.index(layer) for a in allowed.split()), layer


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("evolq_jax/quant/x.py", "from evolq_jax.search import block"),
        ("evolq_jax/quant/x.py", "from evolq_jax import search"),
        ("evolq_jax/quant/x.py", "from ..search import block"),
        ("evolq_jax/quant/__init__.py", "from ..search import block"),
        ("evolq_jax/quant/x.py", "def f():\n    import evolq_jax.search.block"),
        ("evolq_jax/search/x.py", "from evolq_jax.models.vit import make_vit"),
        ("evolq_jax/errors.py", "from evolq_jax import UserError"),
        ("evolq_jax/runs/x.py", "from evolq_jax import __version__"),
        ("configs/x.py", "from evolq_jax.quant.spec import Spec"),
        ("models/x.py", "from evolq_jax.data import load"),
        ("evolq_jax/new_thing.py", ""),
    ],
)
def test_an_upward_import_is_found(path: str, line: str) -> None:
    assert len(layer_problems(parse(path, line))) == 1


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("evolq_jax/quant/x.py", "from .spec import Spec"),
        ("evolq_jax/runs/x.py", "from evolq_jax.version import __version__"),
        ("models/x.py", "from evolq_jax.models.layers import linear"),
        ("evolq_jax/pipeline/x.py", "from evolq_jax import models"),
    ],
)
def test_a_downward_import_is_allowed(path: str, line: str) -> None:
    assert layer_problems(parse(path, line)) == []


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("benchmarks/x.py", "from studies.common.tables import markdown"),
        ("studies/x.py", "from studies.init import make"),
        ("studies/x.py", "from studies import init"),
        ("studies/common/x.py", "from benchmarks.timing import timed"),
        ("studies/x.py", "from tests.tiny import make_tiny"),
    ],
)
def test_a_program_that_leans_on_another_is_found(path: str, line: str) -> None:
    assert len(program_problems(parse(path, line))) == 1


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("evolq_jax/x.py", "import torch"),
        ("evolq_jax/x.py", "import models"),
        ("evolq_jax/x.py", "def f():\n    import pytest"),
        ("evolq_jax/x.py", "from sklearn.datasets import load_digits"),
        ("tests/x.py", "import pandas as pd"),
    ],
)
def test_an_undeclared_import_is_found(path: str, line: str) -> None:
    assert len(dependency_problems(parse(path, line))) == 1


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("evolq_jax/utils.py", ""),
        ("evolq_jax/quant/utils/x.py", ""),
        ("evolq_jax/x.py", "from pickle import load"),
        ("evolq_jax/x.py", "np.load(path, allow_pickle=flag)"),
        ("evolq_jax/x.py", "\n" * (MAX_LINES + 1)),
    ],
)
def test_unwanted_content_is_found(path: str, line: str) -> None:
    assert len(content_problems(parse(path, line))) == 1
