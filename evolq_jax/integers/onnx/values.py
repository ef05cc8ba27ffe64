"""What the equations' variables stand for while a graph is written."""

from typing import Any, NamedTuple

import numpy as np

Dim = Any  # an int, or a multiple of the symbol of the batch
Order = tuple[int, ...]


class Constant(NamedTuple):
    """Numbers that are known. Axes of size 1 may stand for longer ones."""

    array: np.ndarray


class Parameter(NamedTuple):
    """An array of the model. It is stored when it is first needed, in the order that is needed."""

    name: str
    array: np.ndarray


class Weight(NamedTuple):
    """A quantized weight. It is stored as a parameter is."""

    name: str
    codes: np.ndarray
    scale: np.ndarray
    zero_point: np.ndarray
    bits: int
    signed: bool


class Tensor(NamedTuple):
    """A value in the graph.

    Attributes:
      name: in the graph.
      shape: of the equations' variable. Axes of size 1 may stand for longer ones.
      order: axis i of the graph's value is axis `order[i]` of the variable.
      missing: leading axes of size 1 that the graph's value lacks; then the order is natural.
      site: the quantizer whose codes these are. They are decoded where their values are needed. Empty: these
        are values.
    """

    name: str
    shape: tuple[Dim, ...]
    order: Order
    missing: int = 0
    site: str = ""

    @property
    def stored(self) -> tuple[Dim, ...]:
        """The shape of the graph's value."""
        return tuple(self.shape[axis] for axis in self.order)[self.missing :]


Value = Constant | Parameter | Weight | Tensor


def natural(rank: int) -> Order:
    """The order of the equations."""
    return tuple(range(rank))


def shape_of(value: Value) -> tuple[Dim, ...]:
    """The shape of a value, in which axes of size 1 may stand for longer ones."""
    if isinstance(value, Tensor):
        return value.shape
    return (value.codes if isinstance(value, Weight) else value.array).shape


def joint_shape(*shapes: tuple[Dim, ...]) -> tuple[Dim, ...]:
    """The shape that these broadcast to."""
    rank = max(map(len, shapes))
    padded = [(1,) * (rank - len(shape)) + shape for shape in shapes]
    return tuple(next((d for d in dims if _longer(d)), 1) for dims in zip(*padded, strict=True))


def _longer(size: Dim) -> bool:
    return not (isinstance(size, int) and size == 1)


def groups(old: tuple[int, ...], new: tuple[int, ...]) -> list[tuple[list[int], list[int]]]:
    """The runs of axes that a reshape turns into each other: axes of `old`, and those of `new`."""
    found: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(old) or j < len(new):
        before, after = [i] if i < len(old) else [], [j] if j < len(new) else []
        left, right = (old[i] if before else 1), (new[j] if after else 1)
        i, j = i + len(before), j + len(after)
        while left != right:
            if left < right:
                left, before, i = left * old[i], [*before, i], i + 1
            else:
                right, after, j = right * new[j], [*after, j], j + 1
        found.append((before, after))
    return found
