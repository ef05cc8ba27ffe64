"""A graph under construction: nodes, initializers and the names of what flows between them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

INPUT, OUTPUT = "pixel_values", "logits"


@dataclass
class Node:
    """One operator."""

    op: str
    inputs: list[str]
    outputs: list[str]
    attributes: dict[str, Any]


@dataclass(frozen=True)
class Initializer:
    """A stored array. `kind` is ONNX's name of its type: `FLOAT`, `INT4`.

    `order` is that of its axes: axis i of the file is axis `order[i]` of the model's array.
    """

    array: np.ndarray
    kind: str
    order: tuple[int, ...]


KINDS = {
    "float32": "FLOAT",
    "uint8": "UINT8",
    "int8": "INT8",
    "int32": "INT32",
    "int64": "INT64",
    "bool": "BOOL",
}


@dataclass
class Graph:
    """Nodes in the order in which they run.

    Attributes:
      opset: of ONNX's operators.
      num_classes: C, of the output.
      nodes: in order.
      initializers: by name.
      producers: the node that gives a value, by its name.
    """

    opset: int
    num_classes: int
    nodes: list[Node] = field(default_factory=list[Node])
    initializers: dict[str, Initializer] = field(default_factory=dict[str, Initializer])
    producers: dict[str, Node] = field(default_factory=dict[str, Node])
    _numbers: Counter[str] = field(default_factory=Counter[str])
    _constants: dict[tuple[Any, ...], str] = field(default_factory=dict[tuple[Any, ...], str])

    def node(self, op: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        """Adds an operator with one output, and gives the output's name."""
        return self.node_of_many(op, list(inputs), 1, name, **attributes)[0]

    def node_of_many(
        self, op: str, inputs: Sequence[str], outputs: int, name: str = "", **attributes: Any
    ) -> list[str]:
        """Adds an operator, and gives the names of its outputs."""
        names = [self._fresh(name, op) for _ in range(outputs)]
        node = Node(op, list(inputs), names, attributes)
        self.nodes.append(node)
        self.producers |= dict.fromkeys(names, node)
        return names

    def store(
        self, name: str, array: np.ndarray, kind: str | None = None, order: tuple[int, ...] | None = None
    ) -> str:
        """Adds an initializer of a name of its own, once."""
        natural = tuple(range(array.ndim))
        if name not in self.initializers:
            kind = kind or KINDS[array.dtype.name]
            self.initializers[name] = Initializer(array, kind, order or natural)
        return name

    def constant(self, array: np.ndarray) -> str:
        """The name of an initializer with these numbers. Equal ones are stored once."""
        key = (array.dtype.name, array.shape, array.tobytes())
        if key not in self._constants:
            self._constants[key] = self.store(self._fresh("", "constant"), array)
        return self._constants[key]

    def _fresh(self, name: str, kind: str) -> str:
        """The name itself where it is new; else one with a number."""
        stem = name or kind
        self._numbers[stem] += 1
        return name if name and self._numbers[stem] == 1 else f"{stem}_{self._numbers[stem]}"
