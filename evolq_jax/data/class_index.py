"""Which class has which index, from a text, CSV or JSON file.

- Text: one class a line, in index order. A folder is called as the whole line, as what is before its first
  comma, or as its first word (`n01440764 tench, Tinca tinca`). Indices, from 0 or from 1, may be the first or
  the last column.
- CSV: the same in columns, of which any may name the folders.
- JSON: a list of names; names by index, as in ImageNet's `{"0": ["n01440764", "tench"]}`; or indices by name.
  A `config.json` with `id2label` or `label2id` will do.
"""

import codecs
import csv
import re
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from evolq_jax.data.class_json import parse_json
from evolq_jax.errors import UserError, suggestion
from evolq_jax.notes import say_once
from evolq_jax.paths import read_small, shortened

_HEADING = re.compile(
    r"(class|label|category|target|synset|wnid|folder|description)(es|s)?([ _-]?(id|name|idx|index))?s?"
    r"|(id|idx|index|number|name)s?",
    re.IGNORECASE,
)
_SEPARATORS = (",", "\t", ";", ":")
_TABLES = (".csv", ".tsv")


@dataclass(frozen=True)
class ClassIndex:
    """The classes of a file, in index order.

    Attributes:
        where: the file, for messages.
        classes: what each class is called, by index. A folder is compared with the first name of all classes,
            then with the second of all, and so on.
        lines: where each class is in the file: `line 3`.
    """

    where: str
    classes: tuple[tuple[str, ...], ...]
    lines: tuple[str, ...]

    @cached_property
    def _levels(self) -> list[dict[str, list[int]]]:
        """For the first name of all classes, the second and so on: the classes that are called so."""
        levels: list[dict[str, list[int]]] = []
        for level in range(max(map(len, self.classes))):
            found: dict[str, list[int]] = defaultdict(list)
            for number, names in enumerate(self.classes):
                if level < len(names):
                    found[_plain(names[level])].append(number)
            levels.append(found)
        return levels

    @property
    def titles(self) -> list[str]:
        """What people call each class: its name, without its number or id where it has both."""
        return [(*names[1:], *names)[0] for names in self.classes]

    def find(self, folder: str) -> int | None:
        """The index of the class whose images are in a folder called so; None: there is no such class.

        Raises:
            UserError: two classes could be meant.
        """
        for level in self._levels:
            found = level.get(_plain(folder), [])
            if len(found) > 1:
                first, second = (self.lines[number] for number in found[:2])
                raise UserError(f"{self.where} has class '{folder}' twice, in {first} and {second}")
            if found:
                return found[0]
        return None

    @property
    def ids(self) -> list[str]:
        """One name for each class, all different: the shortest ones, but no numbers if there are names.

        Raises:
            UserError: two classes are called the same in every way.
        """
        unique = [list(level) for level in self._levels if len(level) == len(self.classes)]
        if not unique:
            level = self._levels[0]
            self.find(next(name for name, found in level.items() if len(found) > 1))
        return min(unique, key=lambda names: (all(map(str.isdigit, names)), sum(map(len, names))))

    def nearest(self, folder: str) -> str:
        """A hint at the class that is called most alike."""
        return suggestion(_plain(folder), [_plain(name) for names in self.classes for name in names[:1]])


def read_class_index(path: Path) -> ClassIndex:
    """Reads a class-index file.

    Raises:
        UserError: the file is missing, not text or empty, has an empty line inside, or its numbers are no
            indices.
    """
    where = f"class_index {path}"
    text = _decoded(read_small(path, "class_index"), where)
    if not text.strip():
        raise UserError(f"{where} is empty: expected one class id per line")
    if path.suffix.lower() == ".json" or text.lstrip()[0] in "[{":
        entries = parse_json(text, where)
        order = _in_order([index for index, _ in entries], where)
        names = [(*names, names[0].split(",")[0]) for _, names in entries]
        return ClassIndex(where, tuple(names[n] for n in order), tuple(f"entry {n + 1}" for n in order))
    lines = [line.strip() for line in text.replace("\r\n", "\n").replace("\r", "\n").rstrip().split("\n")]
    if "" in lines:
        number = lines.index("") + 1
        raise UserError(f"{where}, line {number} is empty: the lines after it would be off by one")
    return _from_lines(lines, where, is_table=path.suffix.lower() in _TABLES)


def _plain(name: str) -> str:
    """A name as it is compared: systems differ in how they write accents."""
    return unicodedata.normalize("NFC", name.strip())


def _decoded(content: bytes, where: str) -> str:
    is_utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return content.decode("utf-16" if is_utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{where} is not a text file (one class id per line)") from error


def _from_lines(lines: list[str], where: str, *, is_table: bool) -> ClassIndex:
    rows = _table(lines) if is_table else [[line] for line in lines]
    column = _numbered(rows) if is_table else None
    for mark in () if is_table else (None, *_SEPARATORS):
        cells = [[cell.strip() for cell in line.split(mark)] for line in lines]
        column = _numbered(cells)
        if column is not None:  # otherwise the words of a line are one name
            rows = cells if mark else [_two_columns(row, column) for row in cells]
            break
    first = int(_has_heading(rows, column))
    if first:
        say_once(f"{where}: its first line, '{shortened(lines[0])}', is taken for a heading")
    names = [_names(line, row, column) for line, row in zip(lines[first:], rows[first:], strict=True)]
    places = [f"line {number + 1}" for number in range(first, len(lines))]
    if column is None:
        return ClassIndex(where, tuple(names), tuple(places))
    indices = [int(row[column]) for row in rows[first:]]
    base = min(indices) if min(indices) <= 1 else 0
    order = _in_order([index - base for index in indices], where)
    return ClassIndex(where, tuple(names[row] for row in order), tuple(places[row] for row in order))


def _table(lines: list[str]) -> list[list[str]]:
    mark = next((mark for mark in ("\t", ";", ",") if all(mark in line for line in lines)), ",")
    return [[cell.strip() for cell in row] for row in csv.reader(lines, delimiter=mark)]


def _two_columns(words: list[str], column: int) -> list[str]:
    """The words of a line as a number and a name, in their order."""
    return [words[0], " ".join(words[1:])] if column == 0 else [" ".join(words[:-1]), words[-1]]


def _names(line: str, row: list[str], column: int | None) -> tuple[str, ...]:
    """What a class may be called: its line, its columns, then what these begin with, then its number."""
    cells = row if column is None else row[1:] if column == 0 else row[:-1]
    name = next(filter(None, cells), "")
    words = name.split() or [""]
    number = [] if column is None else [row[column]]
    return (line, *cells, name.split(",")[0], words[0].rstrip(",;:"), *number)


def _numbered(rows: list[list[str]]) -> int | None:
    """The column, 0 or -1, that holds indices in all rows, or in all but the first; None: there is none.

    Numbers much larger than the number of rows, or some of them twice, are part of names: years, for example.
    """
    if any(len(row) < 2 for row in rows[1:] or rows):
        return None
    for column in (0, -1):
        cells = [row[column] for row in rows if row]
        body = cells if _is_number(cells[0]) else cells[1:]
        numbers = {int(cell) for cell in body if _is_number(cell)}
        if body and len(numbers) == len(body) and max(numbers) < 4 * len(body):
            return column
    return None


def _is_number(cell: str) -> bool:
    return cell.isascii() and cell.isdigit() and len(cell) < 10


def _has_heading(rows: list[list[str]], column: int | None) -> bool:
    if len(rows) < 2:
        return False
    if column is not None and not _is_number(rows[0][column]):
        return True
    return all(map(_HEADING.fullmatch, rows[0]))


def _in_order(indices: Sequence[int], where: str) -> list[int]:
    """The places of the indices 0, 1, ... in a list of them.

    Raises:
        UserError: one is missing.
    """
    places = {index: place for place, index in enumerate(indices)}
    missing = next((number for number in range(len(indices)) if number not in places), None)
    if missing is not None:
        raise UserError(
            f"{where}: its {len(indices)} classes must have the indices 0 to {len(indices) - 1}, each once; "
            f"{missing} is missing"
        )
    return [places[number] for number in range(len(indices))]
