import json
import os
import unicodedata
from pathlib import Path
from typing import Literal

import pytest

from evolq_jax.data import load_images
from evolq_jax.data.class_index import read_class_index
from evolq_jax.errors import UserError
from evolq_jax.paths import MAX_TEXT_BYTES
from evolq_jax.typing import Preprocessing

FORMS: tuple[Literal["NFC"], Literal["NFD"]] = ("NFC", "NFD")
DOGS = "golden retriever\ngreat dane\ngreat white shark\n"


def written(folder: Path, content: str | bytes, name: str = "index.txt") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.txt", DOGS, {"golden retriever": 0, "great dane": 1, "great white shark": 2, "golden": 0}),
        ("a.txt", "n01 tench, Tinca tinca\nn02 goldfish\n", {"n01": 0, "n02": 1, "n02 goldfish": 1}),
        ("a.txt", "tench, Tinca tinca\nwhite shark, man-eater\n", {"tench": 0, "white shark": 1}),
        ("a.txt", "a\r\nb\r\n\r\n", {"a": 0, "b": 1}),
        ("a.txt", "﻿a\nb\n", {"a": 0, "b": 1}),
        ("a.txt", "0 airplane\n1 automobile\n2 bird\n", {"airplane": 0, "automobile": 1, "bird": 2, "2": 2}),
        ("a.txt", "2 bird\n0 air plane\n1 car\n", {"air plane": 0, "air": 0, "car": 1, "bird": 2}),
        ("a.txt", "bird 2\nair plane 0\ncar 1\n", {"air plane": 0, "car": 1, "bird": 2}),
        ("a.txt", "1 airplane\n2 automobile\n", {"airplane": 0, "automobile": 1}),
        ("a.txt", "0: golden retriever\n1: cat\n", {"golden retriever": 0, "cat": 1}),
        ("a.txt", "cat,1\ngreat dane,0\n", {"cat": 1, "great dane": 0}),
        ("a.txt", "7\n3\n0\n", {"7": 0, "3": 1, "0": 2}),
        ("a.txt", "Audi A4 2012\nAudi A4 2011\nFiat 500 2010\n", {"Audi A4 2011": 1, "Fiat": 2}),
        ("a.txt", "class\na\nb\n", {"a": 0, "b": 1, "class": None}),
        ("a.txt", "index name\n0 a\n1 b\n", {"a": 0, "b": 1}),
        ("a.csv", "class_id,name\nn01,great dane\nn02,cat\n", {"n01": 0, "great dane": 0, "cat": 1}),
        ("a.csv", 'name;index\n"great; dane";1\ncat;0\n', {"great; dane": 1, "cat": 0}),
        ("a.json", '["a", "great dane"]', {"a": 0, "great dane": 1}),
        ("a.json", '{"1": ["n02", "cat"], "0": ["n01", "tench"]}', {"n01": 0, "tench": 0, "cat": 1}),
        ("a.json", '{"cat": 1, "great dane": 0}', {"cat": 1, "great dane": 0}),
        (
            "a.json",
            '{"hidden_size": 3, "id2label": {"0": "tench, Tinca", "1": "cat"}}',
            {"tench": 0, "cat": 1},
        ),
        ("a.txt", "{0: 'tench, Tinca tinca',\n 1: 'cat'}", {"tench": 0, "cat": 1}),
        ("a.txt", "a\nb\n".encode("utf-16"), {"a": 0, "b": 1}),
    ],
)
def test_forms(tmp_path: Path, name: str, content: str | bytes, expected: dict[str, int | None]) -> None:
    index = read_class_index(written(tmp_path, content, name))
    assert {folder: index.find(folder) for folder in expected} == expected


def test_accents_are_compared_in_one_form(tmp_path: Path) -> None:
    composed, apart = (unicodedata.normalize(form, "pâté café") for form in FORMS)
    for mine, other in ((composed, apart), (apart, composed)):
        assert read_class_index(written(tmp_path, f"x\n{mine}\n")).find(other) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        ("\ufeff\n", "is empty"),
        ("a\n\nb\n", "line 2 is empty"),
        (b"\xff\xfe\x00", "not a text file"),
        (b"\x80abc", "not a text file"),
        ("0 a\n1 b\n3 c\n", "its 3 classes must have the indices 0 to 2, each once; 2 is missing"),
        ("2 a\n3 b\n4 c\n", "0 is missing"),
        ('{"0": "a", "2": "b"}', "1 is missing"),
        ('{"a": 0, "b": 0}', "1 is missing"),
        ('{"a": "b"}', "neither a list of names, nor names by index, nor indices by name"),
        ("[1, 2]", "a class must be a name or a list of names"),
        ("[" * 100_000, "is no JSON"),
        ("[" + "9" * 6000 + "]", "is no JSON|must be a name"),
        (b"a" * (MAX_TEXT_BYTES + 1), "has more than 16 MiB: it is some other file"),
    ],
)
def test_what_is_no_class_list_is_refused(tmp_path: Path, content: str | bytes, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_class_index(written(tmp_path, content))


def test_a_word_that_two_classes_begin_with_is_refused_where_it_is_needed(tmp_path: Path) -> None:
    index = read_class_index(written(tmp_path, DOGS))
    with pytest.raises(UserError, match="has class 'great' twice, in line 2 and line 3"):
        index.find("great")
    with pytest.raises(UserError, match="has class 'a' twice, in line 1 and line 3"):
        read_class_index(written(tmp_path, "a\nb\na\n")).find("a")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("n01 tench\nn02 goldfish\n", ["n01", "n02"]),
        (DOGS, DOGS.splitlines()),
        ("1 bird\n0 great dane\n", ["great", "bird"]),
    ],
)
def test_each_class_has_an_id_of_its_own(tmp_path: Path, content: str, expected: list[str]) -> None:
    assert read_class_index(written(tmp_path, content)).ids == expected


def test_pipes_and_devices_are_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(
            UserError, match=r"cannot read class_index .*: it is a pipe, a device or a socket"
        ):
            read_class_index(path)
    with pytest.raises(UserError, match="Is a directory"):
        read_class_index(tmp_path)


def test_a_heading_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    read_class_index(written(tmp_path, "class\na\nb\n"))
    assert "its first line, 'class', is taken for a heading" in caplog.text


def test_an_unknown_class_gets_a_suggestion(folder: Path, tmp_path: Path) -> None:
    (folder / "c").rename(folder / "great dan")
    index = written(tmp_path, json.dumps(["a", "great dane"]), "index.json")
    with pytest.raises(UserError, match=r"unknown class 'great dan': .* did you mean 'great dane'\?"):
        load_images(folder, Preprocessing(20, None), class_index=index)
