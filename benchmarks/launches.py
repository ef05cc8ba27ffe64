"""What a device launches and moves in one run of a compiled program, read from its text.

Every operation of the optimised module that is no bookkeeping is one launch: a fusion, a product, a copy. If
a fusion reads a slice of a larger array, the slice counts. Where the rounds of a loop are not in the text, or
there is a condition, a number on the device decides: on a GPU the host fetches it before each round.
"""

import math
import re
from collections import Counter
from dataclasses import dataclass, field

from benchmarks.compiled import array_bytes, branches, computations, known_trips

_FREE = (
    *("parameter", "constant", "bitcast", "get-tuple-element", "tuple", "after-all", "partition-id"),
    *("while", "conditional", "call", "iota"),
)
_LINE = re.compile(r"^\s*(?:ROOT )?%?([\w.-]+) = (\(.*?\)|\S+) ([\w-]+)\((.*)$")
_ARRAY = re.compile(r"\b([a-z]+[0-9]*)\[([0-9,]*)\]")
_HOST = ("infeed", "outfeed", "send", "recv")


@dataclass
class Launches:
    """Of one run of a program."""

    kinds: Counter[str] = field(default_factory=Counter[str])  # launches, by operation
    bytes: int = 0  # read and written
    copied: int = 0  # of these, by copies alone
    host: int = 0  # numbers that the host must fetch, or gives, while the program runs
    unknown_loops: int = 0  # in the text

    @property
    def total(self) -> int:
        """All launches."""
        return sum(self.kinds.values())

    def add(self, other: "Launches", times: int = 1) -> None:
        """What `times` runs of a part do."""
        for kind, count in other.kinds.items():
            self.kinds[kind] += times * count
        self.bytes += times * other.bytes
        self.copied += times * other.copied
        self.host += times * other.host
        self.unknown_loops += other.unknown_loops


def launches(text: str, unknown_trips: int = 1) -> Launches:
    """Of a program's compiled text (`jit(fn).lower(...).compile().as_text()`).

    Args:
      text: of the optimised module.
      unknown_trips: how often loops run whose number of rounds is traced.
    """
    found, entry = computations(text)
    return _of(entry, found, unknown_trips)


def _of(name: str, found: dict[str, list[str]], unknown_trips: int) -> Launches:
    sum_, shapes = Launches(), dict[str, str]()
    for line in found[name]:
        match = _LINE.match(line)
        if not match:
            continue
        result, shape, op, rest = match.groups()
        shapes[result] = shape
        if op == "while":
            trips = known_trips(line)
            body = _of(_named("body", line), found, unknown_trips)
            body.add(_of(_named("condition", line), found, unknown_trips))
            body.host += trips is None
            sum_.add(body, unknown_trips if trips is None else trips)
            sum_.unknown_loops += trips is None
        elif op == "conditional":
            runs = [_of(branch, found, unknown_trips) for branch in branches(line)]
            sum_.add(max(runs, key=lambda branch: branch.bytes))
            sum_.host += 1
        elif op == "call":
            sum_.add(_of(_named("to_apply", line), found, unknown_trips))
        elif op.removesuffix("-done").removesuffix("-start") in _HOST:
            sum_.host += 1
        elif op not in _FREE and not op.endswith("-done"):
            sum_.add(_launch(op, shape, rest, shapes, found))
    return sum_


def _launch(op: str, shape: str, rest: str, shapes: dict[str, str], found: dict[str, list[str]]) -> Launches:
    """One operation."""
    operands = [shapes[name] for name in re.findall(r"%([\w.-]+)", rest.split("), ")[0]) if name in shapes]
    read = [_bytes(operand) for operand in operands]
    if op == "fusion":
        read = _read_by_fusion(found[_named("calls", rest)], read)
    moved = _bytes(shape) + sum(read)
    kind = "copy" if op.startswith("copy") else op
    return Launches(Counter({kind: 1}), moved, moved if kind == "copy" else 0)


def _read_by_fusion(lines: list[str], whole: list[int]) -> list[int]:
    """The bytes of each operand that a fusion reads: all, or what it slices off."""
    matches = [match for match in map(_LINE.match, lines) if match]
    numbers = {m[1]: int(m[4].split(")")[0]) for m in matches if m[3] == "parameter"}
    slices: dict[str, list[int | None]] = {name: [] for name in numbers}
    for match in matches:
        for place, name in enumerate(re.findall(r"%([\w.-]+)", match[4].split("), ")[0])):
            if name in slices:
                is_slice = match[3] in ("dynamic-slice", "slice", "gather") and place == 0
                slices[name].append(_bytes(match[2]) if is_slice else None)
    read = list(whole)
    for name, number in numbers.items():
        sizes = [size for size in slices[name] if size is not None]
        if len(sizes) == len(slices[name]) and number < len(read):
            read[number] = min(read[number], sum(sizes))
    return read


def _named(what: str, line: str) -> str:
    match = re.search(rf"{what}=%?([\w.-]+)", line)
    assert match is not None, line
    return match[1]


def _bytes(shape: str) -> int:
    return sum(math.ceil(array_bytes(found)) for found in _ARRAY.findall(shape))
