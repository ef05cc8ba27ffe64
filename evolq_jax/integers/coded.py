"""Values that are still codes, on their way from a quantization point to a product."""

from collections.abc import Iterator
from typing import Any

import jax
from flax import struct

from evolq_jax.typing import Array

Shape = tuple[int, ...]


@struct.dataclass
class Coded:
    """Codes with what they stand for: `(codes - zero_point) * scale`.

    Attributes:
      codes: [...], of any type that holds them.
      scale: of the rank of the codes, and of size 1 on the axes along which it is constant. None: `codes` are
        values already, since the site's quantizer has no equal steps.
      zero_point: as the scale.
      sites: where they may be from. In a loop the input of a block is from the block before, or else from
        what precedes the loop.
    """

    codes: Array
    scale: Array | None
    zero_point: Array | None
    sites: tuple[str, ...] = struct.field(pytree_node=False)

    @property
    def values(self) -> Array:
        """What the codes stand for."""
        if self.scale is None or self.zero_point is None:
            return self.codes
        return (self.codes - self.zero_point) * self.scale


def values_of(x: Any) -> Array:
    """The value of what may be coded."""
    return x.values if isinstance(x, Coded) else x


def moved(eqn: Any, given: list[Any]) -> list[Coded] | None:
    """What an operation gives that only moves codes. None: it does more, or their scales forbid it.

    Args:
      eqn: an equation of a jaxpr.
      given: its operands, of which one at least is coded.
    """
    first, kind = given[0], eqn.primitive.name
    if kind == "concatenate" and _are_pieces(given, eqn.params["dimension"]):
        return [first.replace(codes=jax.lax.concatenate([x.codes for x in given], eqn.params["dimension"]))]
    if len(given) > 1 or kind not in MOVES:
        return None
    codes = eqn.primitive.bind(first.codes, **eqn.params)
    results = codes if eqn.primitive.multiple_results else [codes]
    if first.scale is None:
        return [first.replace(codes=result) for result in results]
    shape = _moved_shape(eqn, first.scale.shape, first.codes.shape, results[0].shape)
    if shape is None:
        return None
    scale, zero_point = (_in_shape(eqn, numbers, shape) for numbers in (first.scale, first.zero_point))
    return [first.replace(codes=result, scale=scale, zero_point=zero_point) for result in results]


MOVES = ("reshape", "transpose", "squeeze", "broadcast_in_dim", "slice", "split", "reduce_window_max")


def _moved_shape(eqn: Any, numbers: Shape, old: Shape, new: Shape) -> Shape | None:
    """The shape of scales behind a move, of which the shapes were these. None: no scales can follow it."""
    kind, params = eqn.primitive.name, eqn.params
    if kind == "reshape":
        return _reshaped(numbers, old, new)
    if kind == "transpose":
        return tuple(numbers[axis] for axis in params["permutation"])
    if kind == "squeeze":
        return tuple(size for axis, size in enumerate(numbers) if axis not in params["dimensions"])
    if kind == "broadcast_in_dim":
        sizes = dict(zip(params["broadcast_dimensions"], numbers, strict=True))
        return tuple(sizes.get(axis, 1) for axis in range(len(new)))
    # what cuts an axis or compares neighbours on it (codes are in the order of their values)
    changed = (was != now for was, now in zip(old, new, strict=True))
    varies = kind == "reduce_window_max" or any(
        c and size > 1 for c, size in zip(changed, numbers, strict=True)
    )
    return numbers if max(numbers, default=1) == 1 or not varies else None


def _in_shape(eqn: Any, numbers: Array, shape: Shape) -> Array:
    if eqn.primitive.name == "transpose":
        return numbers.transpose(eqn.params["permutation"])
    return numbers if numbers.shape == shape else numbers.reshape(shape)


def _reshaped(numbers: Shape, old: Shape, new: Shape) -> Shape | None:
    """Scales along axes that are split, or merged with others along which they vary as well, follow."""
    found: list[int] = []
    for before, after in _matched(old, new):
        varying = numbers[before]
        if all(size == 1 for size in varying):
            found += [1] * len(new[after])
        elif varying == old[before]:
            found += new[after]
        else:
            return None
    return tuple(found)


def _matched(old: Shape, new: Shape) -> Iterator[tuple[slice, slice]]:
    """The shortest runs of axes of both shapes that hold as many items."""
    i = j = 0
    while i < len(old) and j < len(new):
        a, b, left, right = i + 1, j + 1, old[i], new[j]
        while left != right:
            if left < right:
                a, left = a + 1, left * old[a]
            else:
                b, right = b + 1, right * new[b]
        yield slice(i, a), slice(j, b)
        i, j = a, b
    yield slice(i, len(old)), slice(j, len(new))  # axes of size 1


def _are_pieces(given: list[Any], axis: int) -> bool:
    """Whether all are pieces of one tensor, whose scale is constant along the axis."""
    first = given[0]
    return all(
        isinstance(x, Coded) and x.scale is first.scale and x.sites == first.sites for x in given
    ) and (first.scale is None or first.scale.shape[axis] == 1)
