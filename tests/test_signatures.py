"""No function takes more than four positional arguments, and no call unpacks what was packed elsewhere."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "evolq_jax"
MOST = 4  # beside `self`; beyond that, keyword-only

# Signatures that a library dictates: (name, its parameters), and the reason.
DICTATED = {
    ("_tell", ("key", "population", "fitness", "state", "params")): "evosax's algorithms call it",
}


class Module(NamedTuple):
    path: str  # relative to the package, with /
    tree: ast.Module


Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda


def modules() -> list[Module]:
    """The whole package; `**` does not follow the links to models and configs."""
    folders = [PACKAGE, *(path for path in PACKAGE.iterdir() if path.is_symlink())]
    paths = sorted(path for folder in folders for path in folder.glob("**/*.py"))
    found = [(path.relative_to(PACKAGE).as_posix(), path.read_text(encoding="utf-8")) for path in paths]
    return [Module(path, ast.parse(text, path)) for path, text in found]


def functions(tree: ast.Module) -> Iterator[tuple[Function, tuple[str, ...]]]:
    """Every function, also inside others, and what it takes by position, beside `self` or the class."""
    methods = {
        statement
        for owner in ast.walk(tree)
        if isinstance(owner, ast.ClassDef)
        for statement in owner.body
        if isinstance(statement, Function) and "staticmethod" not in map(ast.unparse, _decorators(statement))
    }
    for node in ast.walk(tree):
        if isinstance(node, Function):
            names = tuple(argument.arg for argument in (*node.args.posonlyargs, *node.args.args))
            yield node, names[node in methods :]


def _decorators(function: Function) -> list[ast.expr]:
    return [] if isinstance(function, ast.Lambda) else function.decorator_list


def name_of(node: ast.AST) -> str:
    """The last part of a function's or a callee's name."""
    return getattr(node, "name", None) or getattr(node, "attr", None) or getattr(node, "id", "lambda")


def long_signatures(module: Module) -> list[str]:
    return [
        f"{module.path}:{node.lineno}: '{name_of(node)}' takes {len(names)} arguments by position "
        f"({', '.join(names)}): make those beyond {MOST} keyword-only, or join them under a name"
        for node, names in functions(module.tree)
        if len(names) > MOST and (name_of(node), names) not in DICTATED
    ]


def of_fixed_length(found: list[Module]) -> set[str]:
    """The package's functions and records that take a fixed number of arguments, by name."""
    fixed = {
        name_of(node)
        for module in found
        for node, _ in functions(module.tree)
        if not isinstance(node, ast.Lambda) and node.args.vararg is None
    }
    records = {
        node.name for module in found for node in ast.walk(module.tree) if isinstance(node, ast.ClassDef)
    }
    return fixed | records


def packed_arguments(module: Module, fixed: set[str]) -> list[str]:
    """Starred arguments of our own functions: of others, they are things alike, as those of `zip` are."""
    foreign = {
        alias.asname or alias.name
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    return [
        f"{module.path}:{node.lineno}: '{ast.unparse(argument)}' packs arguments of '{name_of(node.func)}': "
        "pass each, or make them one with named fields"
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call)
        for argument in node.args
        if isinstance(argument, ast.Starred)
        and name_of(node.func) in fixed
        and ast.unparse(node.func).split(".")[0] not in foreign
    ]


def test_no_function_takes_more_than_four_positional_arguments() -> None:
    problems = [problem for module in modules() for problem in long_signatures(module)]
    assert not problems, "\n".join(problems)


def test_no_call_unpacks_packed_arguments() -> None:
    found = modules()
    fixed = of_fixed_length(found)
    problems = [problem for module in found for problem in packed_arguments(module, fixed)]
    assert not problems, "\n".join(problems)


def test_the_whole_package_is_read_and_nothing_is_excused_for_nothing() -> None:
    found = modules()
    paths = {module.path for module in found}
    assert {"gradient/driver.py", "quant/sites.py", "verbs/search/run.py", "models/swin.py"} <= paths
    used = {(name_of(node), names) for module in found for node, names in functions(module.tree)}
    assert set(DICTATED) <= used


@pytest.mark.parametrize(
    "text",
    [
        "def f(a, b, c, d, e): ...",
        "def f(a, b, /, c, d, e): ...",
        "async def f(a, b, c, d, e=1): ...",
        "f = lambda a, b, c, d, e: a",
        "def outer():\n    def f(a, b, c, d, e): ...",
        "class C:\n    def f(self, a, b, c, d, e): ...",
        "class C:\n    @staticmethod\n    def f(a, b, c, d, e): ...",
    ],
)
def test_a_long_signature_is_found(text: str) -> None:
    assert len(long_signatures(Module("x.py", ast.parse(text)))) == 1


@pytest.mark.parametrize(
    "text",
    [
        "def f(a, b, c, d, *, e, f): ...",
        "def f(a, *more, **settings): ...",
        "class C:\n    def f(self, a, b, c, d): ...",
        "class C:\n    @classmethod\n    def f(cls, a, b, c, d): ...",
    ],
)
def test_a_short_signature_is_left_alone(text: str) -> None:
    assert long_signatures(Module("x.py", ast.parse(text))) == []


@pytest.mark.parametrize(
    ("call", "count"),
    [("f(*sizes)", 1), ("Record(1, *rest)", 1), ("many(*names)", 0), ("zip(*rows)", 0), ("jnp.f(*pair)", 0)],
)
def test_packed_arguments_are_found(call: str, count: int) -> None:
    text = f"import jax.numpy as jnp\ndef f(a, b): ...\ndef many(*names): ...\nclass Record: ...\n{call}"
    module = Module("x.py", ast.parse(text))
    assert len(packed_arguments(module, of_fixed_length([module]))) == count
