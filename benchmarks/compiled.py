"""The matrix products and collectives of a compiled program on each device, read from its text.

The body of a loop counts as often as it runs, and of a condition's branches the one with more products. For a
loop with traced bounds, as over the blocks from the searched one on, this is not in the text; the caller says
how often it runs.
"""

import math
import re
from collections import Counter
from dataclasses import dataclass, field

COLLECTIVES = (
    "all-gather",
    "all-reduce",
    "all-to-all",
    "collective-permute",
    "reduce-scatter",
    "collective-broadcast",
)
_BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s64": 8, "u64": 8, "f64": 8}  # others: 4
_SHAPE = re.compile(r"\b([a-z]+[0-9]*)\[([0-9,]*)\]")
_HEADER = re.compile(r"^(ENTRY )?%?([\w.-]+) \(.*\) -> .* \{$")
_RESULT = re.compile(r"^\s*(?:ROOT )?%?([\w.-]+) = (\(.*?\)|\S+) ([\w-]+)\(")
_CALLED = re.compile(r"(?:calls|to_apply|body)=%?([\w.-]+)")


@dataclass
class Work:
    """Of one run of a program on one device."""

    flops: float = 0.0  # of matrix products
    counts: Counter[str] = field(default_factory=Counter[str])  # collectives by kind
    received: Counter[str] = field(default_factory=Counter[str])  # bytes of their results
    largest: int = 0  # bytes of the largest result

    def add(self, other: "Work", times: int) -> None:
        """What `times` runs of a part do."""
        self.flops += times * other.flops
        for kind in other.counts:
            self.counts[kind] += times * other.counts[kind]
            self.received[kind] += times * other.received[kind]
        self.largest = max(self.largest, other.largest)


def work(text: str, unknown_trips: int = 1) -> Work:
    """Of a program's compiled text (`jit(fn).lower(...).compile().as_text()`).

    Args:
      text: of the optimised module.
      unknown_trips: how often loops run whose number of rounds is traced.
    """
    parts, entry = computations(text)
    found: dict[str, Work] = {}

    def total(name: str) -> Work:
        if name not in found:
            shapes: dict[str, str] = {}
            found[name] = sum_ = Work()
            for line in parts[name]:
                match = _RESULT.match(line)
                if not match:
                    continue
                shapes[match[1]] = match[2]
                sum_.add(_own(line, match[2], match[3], shapes), 1)
                known = known_trips(line) if match[3] == "while" else 1
                times = unknown_trips if known is None else known
                for called in _CALLED.findall(line):
                    sum_.add(total(called), times)
                if match[3] == "conditional":
                    sum_.add(max(map(total, branches(line)), key=lambda branch: branch.flops), 1)
        return found[name]

    return total(entry)


def computations(text: str) -> tuple[dict[str, list[str]], str]:
    """The lines of every computation by its name, and the name of the first to run."""
    found: dict[str, list[str]] = {}
    entry = name = ""
    for line in text.splitlines():
        header = _HEADER.match(line)
        if header:
            name = header[2]
            found[name] = []
            entry = name if header[1] else entry
        elif name:
            found[name].append(line)
    return found, entry


def branches(line: str) -> list[str]:
    """The names of a conditional's computations."""
    several = re.search(r"branch_computations=\{([^}]*)\}", line)
    if several:
        return re.findall(r"[\w.-]+", several[1])
    return re.findall(r"(?:true|false)_computation=%?([\w.-]+)", line)


def _own(line: str, shape: str, op: str, shapes: dict[str, str]) -> Work:
    """Of one operation, without what it calls."""
    kind = op.removesuffix("-start")
    if kind in COLLECTIVES:
        sizes = [array_bytes(found) for found in _SHAPE.findall(shape)]
        size = sum(sizes) if op == kind else max(sizes)  # what is begun names its operand as well
        return Work(0.0, Counter({kind: 1}), Counter({kind: size}), size)
    if op == "dot":
        operand = line.split("dot(", 1)[1]
        left = _SHAPE.match(operand) or _SHAPE.search(shapes[operand.split(",")[0].strip(" %)")])
        axes = re.search(r"lhs_contracting_dims=\{([0-9,]+)\}", line)
        if left is None or axes is None:
            raise ValueError(f"not a matrix product as known here: {line}")
        sizes = [int(size) for size in left[2].split(",")]
        contracted = math.prod(sizes[int(axis)] for axis in axes[1].split(","))
        return Work(2.0 * contracted * math.prod(_sizes(shape)))
    return Work()


def known_trips(line: str) -> int | None:
    """How often a loop runs; None: that is not in the text."""
    known = re.search(r'known_trip_count"?:\{"?n"?:"?([0-9]+)', line)
    return int(known[1]) if known else None


def _sizes(shape: str) -> list[int]:
    match = _SHAPE.search(shape)
    return [int(size) for size in match[2].split(",") if size] if match else []


def array_bytes(shape: tuple[str, str]) -> int:
    """Of an array, given its type and its sizes as the text writes them."""
    return _BYTES.get(shape[0], 4) * math.prod(int(size) for size in shape[1].split(",") if size)
