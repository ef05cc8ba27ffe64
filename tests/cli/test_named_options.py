"""Options and fields that the source's texts name exist."""

import argparse
import ast
import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_type_hints

import pytest

import evolq_jax
import evolq_jax.models
from evolq_jax.cli.arguments import OPTIONS, make_parser
from evolq_jax.cli.commands import COMMANDS
from evolq_jax.cli.override import settable_fields
from evolq_jax.config.comparison import Comparison
from evolq_jax.config.experiment import Experiment
from evolq_jax.devices.xla_flags import ON_NVIDIA
from evolq_jax.training import TrainExperiment


def fields(kind: type, prefix: str = "") -> Iterator[str]:
    """Dotted names of all fields of nested dataclasses, and of these themselves."""
    for name, hint in get_type_hints(kind).items():
        yield prefix + name
        if dataclasses.is_dataclass(hint):
            yield from fields(hint, f"{prefix}{name}.")  # type: ignore[arg-type]


CODE = sorted(
    path for package in (evolq_jax, evolq_jax.models) for path in Path(package.__path__[0]).rglob("*.py")
)
CONFIGS = (Experiment, Comparison, TrainExperiment)
TYPES = {name: type_ for kind in CONFIGS for name, type_ in settable_fields(kind).items()}
OFF = (re.sub(r"(\w[\w-]*)$", r"no-\1", name) for name, type_ in TYPES.items() if type_ is bool)
SETTABLE = {*TYPES, *OFF}
FIELDS = {name for kind in CONFIGS for name in fields(kind)}
SECTIONS = sorted({name.split(".")[0] for name in FIELDS if "." in name})
OPEN = "\0"  # where a text has a value put in
OPTION = re.compile(rf"(?<![\w/-])--(\w[\w.-]*\w)(?![\w{OPEN}])(?!\.{OPEN})(?!-{OPEN})")
FIELD = re.compile(
    rf"(?<![\w/.-])((?:{'|'.join(SECTIONS)})\.[a-z_]\w*(?:\.[a-z_]\w*)*)(?![\w{OPEN}(/])(?!\.{OPEN})"
)
FILES = (".py", ".json", ".npz", ".txt", ".safetensors", ".png")
OF_TFDS = {"--file_format", "--data_dir", "--out_file_format"}
OTHERS = {"--version", *OF_TFDS, ON_NVIDIA.split("=")[0]}  # not of verbs


def verbs_options() -> dict[str, set[str]]:
    """Verb -> its options, without dashes before them."""
    several = argparse._SubParsersAction  # pyright: ignore[reportPrivateUsage]
    (verbs,) = (each for each in make_parser(COMMANDS)._actions if isinstance(each, several))
    return {
        verb: {option for action in sub._actions for option in action.option_strings if option[:2] == "--"}
        for verb, sub in verbs.choices.items()
    }


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """Line and text of the file's strings but docstrings, with OPEN where a value stands in one."""
    tree = ast.parse(path.read_text())
    inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    inside |= {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside:
            yield node.lineno, node.value
        elif isinstance(node, ast.JoinedStr):
            parts = [part.value if isinstance(part, ast.Constant) else OPEN for part in node.values]
            yield node.lineno, "".join(map(str, parts))


def unknown(text: str, options: set[str]) -> list[str]:
    """What a text calls an option or a field and is none."""
    named = [name for name in OPTION.findall(text) if f"--{name}" not in options | OTHERS]
    wrong = [name for name in named if name.replace("_", "-") not in SETTABLE]
    read = [name for name in FIELD.findall(text) if not name.endswith(FILES)]
    return wrong + [name for name in read if name not in FIELDS and name.replace("_", "-") not in SETTABLE]


def test_options_and_fields_that_texts_name_exist() -> None:
    options = set().union(*verbs_options().values())
    wrong = [
        f"{path.name}:{line}: {name}"
        for path in CODE
        for line, text in texts(path)
        for name in unknown(text, options)
    ]
    assert wrong == []


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("set --search.pases", ["search.pases"]),
        ("set search.pases or --search.passes", ["search.pases"]),
        ("name it with --rundir 'a'", ["rundir"]),
        (f"set --data.{OPEN} or calibration.{OPEN}, --run-dir", []),
        ("write data.num_calibration; --data.num-calibration 3", []),
    ],
)
def test_names_are_found_in_texts(text: str, wrong: list[str]) -> None:
    assert unknown(text, {"--run-dir"}) == wrong


def test_options_of_verbs_with_a_config_are_known_to_suggestions() -> None:
    found = set().union(*(verbs_options()[verb] for verb, each in COMMANDS.items() if each.config))
    assert found <= set(OPTIONS)
