"""Brings values into the graph, and into the order and shape that an operator wants."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from evolq_jax.integers.onnx.graph import INPUT, Graph
from evolq_jax.integers.onnx.values import (
    Constant,
    Dim,
    Order,
    Parameter,
    Tensor,
    Value,
    Weight,
    groups,
    natural,
    shape_of,
)

STAND_IN = 1_000_003  # a prime that takes the place of the batch where sizes are compared


@dataclass
class Layout:
    """A graph, and how values get into it.

    Attributes:
      graph: under construction.
      batch: the symbol of the number of images.
      narrow: ONNX's types for few bits, by bits.
      symmetric: whether codes have no zero points, as TensorRT wants them: activations are int8, codes of
        weights are not cast, and a value is first moved and then quantized, right before its product. Else
        codes are moved, which are fewer bytes.
      shared: values of the graph that several equations read.
    """

    graph: Graph
    batch: Any
    narrow: Mapping[int, str]
    symmetric: bool
    shared: set[str] = field(default_factory=set[str])
    _decoded: dict[tuple[str, str], str] = field(default_factory=dict[tuple[str, str], str])

    def multiple(self, size: Dim) -> int | None:
        """How many times the batch a size is; None: it is a number."""
        return None if isinstance(size, int | np.integer) else int(size // self.batch)

    def tensor(self, value: Value, order: Order | None = None) -> Tensor:
        """The value in the graph; in this order, if one is given."""
        if isinstance(value, Constant):
            wanted = order or natural(value.array.ndim)
            return Tensor(self.graph.constant(value.array.transpose(wanted)), value.array.shape, wanted)
        if isinstance(value, Parameter | Weight):
            value = self._stored(value, order or natural(len(shape_of(value))))
        if order is None or (value.order == order and not value.missing):
            return value
        if value.missing:
            value = self._in_shape(value, value.shape, natural(len(value.shape)))
        if value.order == order:
            return value
        permutation = [value.order.index(axis) for axis in order]
        return value._replace(name=self.graph.node("Transpose", value.name, perm=permutation), order=order)

    def values(self, value: Value) -> Value:
        """The value itself where codes stand for it."""
        if not isinstance(value, Tensor) or not value.site:
            return value
        key = value.name, value.site
        if key not in self._decoded:
            numbers = (f"{value.site}.scale", f"{value.site}.zero_point")
            codes = self.quantize(value.name, value.site) if self.symmetric else value.name
            name = f"{value.site}.dequantized"
            self._decoded[key] = self.graph.node("DequantizeLinear", codes, *numbers, name=name)
        return value._replace(name=self._decoded[key], site="")

    def quantize(self, name: str, site: str) -> str:
        """The codes of a value, by a site's scale and zero point."""
        numbers = (f"{site}.scale", f"{site}.zero_point")
        return self.graph.node("QuantizeLinear", name, *numbers, name=f"{site}.quantized")

    def natural(self, value: Value) -> Tensor:
        """The value in the graph, in the order of the equations."""
        return self.tensor(value, natural(len(shape_of(value))))

    def full(self, value: Value, shape: tuple[Dim, ...]) -> Value:
        """The value with all axes as long as they are, where it has some of size 1 in their place."""
        if shape_of(value) == tuple(shape):
            return value
        found = self.natural(value)
        name = self.graph.node("Expand", found.name, self.sizes(shape))
        return found._replace(name=name, shape=tuple(shape))

    def sizes(self, shape: tuple[Dim, ...]) -> str:
        """The name of a shape [rank], which may hold multiples of the batch."""
        if all(self.multiple(size) is None for size in shape):
            return self.graph.constant(np.array(shape, np.int64))
        count = self.graph.node("Shape", INPUT, start=0, end=1)
        pieces = [self._size(size, count) for size in shape]
        return self.graph.node("Concat", *pieces, axis=0)

    def _size(self, size: Dim, count: str) -> str:
        times = self.multiple(size)
        if times is None:
            return self.graph.constant(np.array([size], np.int64))
        return count if times == 1 else self.graph.node("Mul", count, self.graph.constant(np.array([times])))

    def reshaped(self, value: Value, shape: tuple[Dim, ...]) -> Value:
        """The value with other axes. Where its order allows, it keeps it."""
        if isinstance(value, Constant):
            return Constant(value.array.reshape(shape))
        found = self.tensor(value)
        if found.missing:
            found = self.natural(found)
        order: list[int] = []
        runs = {tuple(old): new for old, new in groups(self._numbers(found.shape), self._numbers(shape))}
        place = 0
        while place < len(found.order):
            run = next((r for r in runs if r and r == found.order[place : place + len(r)]), None)
            if run is None:
                return self._in_shape(self.natural(found), shape, natural(len(shape)))
            order, place = [*order, *runs[run]], place + len(run)
        return self._in_shape(found, shape, (*order, *runs.get((), ())))

    def _in_shape(self, value: Tensor, shape: tuple[Dim, ...], order: Order) -> Tensor:
        stored = tuple(shape[axis] for axis in order)
        if stored == value.stored:
            return Tensor(value.name, tuple(shape), order, site=value.site)
        sizes = [-1 if self.multiple(size) else int(size) for size in stored]
        name = self.graph.node("Reshape", value.name, self.graph.constant(np.array(sizes, np.int64)))
        return Tensor(name, tuple(shape), order, site=value.site)

    def _numbers(self, shape: tuple[Dim, ...]) -> tuple[int, ...]:
        return tuple((self.multiple(size) or 0) * STAND_IN or int(size) for size in shape)

    def _stored(self, value: Parameter | Weight, order: Order) -> Tensor:
        """A parameter's initializer. Its order is that of its first use."""
        if isinstance(value, Weight):
            return self._weight(value, order)
        self.graph.store(value.name, value.array.transpose(order), order=order)
        return Tensor(value.name, value.array.shape, self.graph.initializers[value.name].order)

    def _weight(self, weight: Weight, order: Order) -> Tensor:
        """`codes -> Cast -> DequantizeLinear`: as signed integers, with explicit zero points."""
        graph, name = self.graph, f"{weight.name}.codes"
        if name not in graph.initializers:
            half = 0 if weight.signed else 1 << (weight.bits - 1)
            codes = (weight.codes.astype(np.int16) - half).astype(np.int8).transpose(order)
            zeros = (weight.zero_point.astype(np.int16) - half).astype(np.int8)
            kind = self.narrow.get(weight.bits, "INT8")
            graph.store(name, codes, kind, order)
            graph.store(f"{weight.name}.scale", _axis_or_number(weight.scale))
            cast = kind != "INT8" and not self.symmetric
            given = graph.node("Cast", name, to=3) if cast else name
            zero_kind = "INT8" if cast else kind
            graph.store(f"{weight.name}.zero_point", _axis_or_number(zeros), zero_kind)
            axis = order.index(weight.codes.ndim - 1)
            numbers = (f"{weight.name}.scale", f"{weight.name}.zero_point")
            graph.node("DequantizeLinear", given, *numbers, axis=axis, name=f"{weight.name}.decoded")
        return Tensor(f"{weight.name}.decoded", weight.codes.shape, graph.initializers[name].order)


def _axis_or_number(array: np.ndarray) -> np.ndarray:
    """[K], or a number where one serves all channels."""
    return array.reshape(() if array.size == 1 else -1)
