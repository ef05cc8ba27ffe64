"""Products of codes, whose sums are exact, with integers that lie in int8, float32 or bfloat16.

Floats hold all integers up to 2**24. As long as no sum is larger, a matrix unit for floats gives the very
sums of one for integers.
"""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from evolq_jax.integers.coded import Coded
from evolq_jax.typing import Array

Carrier = Literal["int8", "float32", "bfloat16"]
LIMITS: dict[Carrier, int] = {"int8": 2**31, "float32": 2**24, "bfloat16": 2**24}  # of the size of a sum
MIDDLE = 128  # is taken off uint8 so that it lies in int8


class Carried(NamedTuple):
    """Codes less their zero points: `integers + shift`.

    Attributes:
      integers: [...] of the carrier's type.
      shift: int32, of size 1 on the axes along which it is constant. None: zero.
    """

    integers: Array
    shift: Array | None


def carry(carrier: Carrier, x: Coded, *, wide: bool) -> Carried:
    """Codes less their zero points, in a carrier.

    Args:
      carrier: the type in which they are multiplied.
      x: codes of equal steps.
      wide: whether they may then lie outside of int8.
    """
    codes = x.codes.astype(jnp.float32)
    if carrier == "int8" and wide:
        return Carried((codes - MIDDLE).astype(jnp.int8), (MIDDLE - _given(x.zero_point)).astype(jnp.int32))
    return Carried((codes - _given(x.zero_point)).astype(carrier), None)


def product_of(eqn: Any, carrier: Carrier, operands: Sequence[Coded], *, wide: Sequence[bool]) -> Array:
    """A `dot_general` or a convolution of codes: exact sums, then one multiplication by both scales.

    Args:
      eqn: the equation of a jaxpr.
      carrier: the type of the integers.
      operands: both of them.
      wide: whether each lies outside of int8.
    """
    a, b = (carry(carrier, x, wide=w) for x, w in zip(operands, wide, strict=True))
    sums = _sums(eqn, a, b)
    scale_a, scale_b = (_in_result(eqn, _given(x.scale), side) for side, x in enumerate(operands))
    return sums.astype(jnp.float32) * (scale_a * scale_b)


def summed_axes(eqn: Any, side: int) -> tuple[int, ...]:
    """The axes of an operand over which a product sums. Of an image, those of its pixels count as well."""
    numbers = eqn.params["dimension_numbers"]
    return tuple(numbers[0][side] if _is_dot(eqn) else numbers[side][1:])


def is_plain(eqn: Any) -> bool:
    """Whether a product has no zeros between its inputs and no groups of images."""
    return _is_dot(eqn) or (set(eqn.params["lhs_dilation"]) == {1} and eqn.params["batch_group_count"] == 1)


def _is_dot(eqn: Any) -> bool:
    return eqn.primitive.name == "dot_general"


def _given(numbers: Array | None) -> Array:
    assert numbers is not None
    return numbers


def _sums(eqn: Any, a: Carried, b: Carried) -> Array:
    """`(a + s) (b + t)`, which is `a b + s (sum of b + n t) + t (sum of a)`."""
    dot, padding = _is_dot(eqn), ()
    if not dot:
        a, padding = _padded(eqn, a)
    multiply = _dot(eqn) if dot else _convolve(eqn, padding)
    sums = multiply(a.integers, b.integers)
    if a.shift is not None:
        of_b = _in_result(eqn, _totals(eqn, b.integers, 1), 1)
        if b.shift is not None:
            terms = prod(b.integers.shape[axis] for axis in summed_axes(eqn, 1))
            of_b += terms * _in_result(eqn, b.shift, 1)
        sums += _in_result(eqn, a.shift, 0) * of_b
    if b.shift is not None:  # the windows of a convolution overlap, so their sums are another one
        ones = jnp.ones_like(b.integers)
        of_a = _in_result(eqn, _totals(eqn, a.integers, 0), 0) if dot else multiply(a.integers, ones)
        sums += _in_result(eqn, b.shift, 1) * of_a
    return sums


def _totals(eqn: Any, integers: Array, side: int) -> Array:
    return integers.astype(jnp.int32).sum(summed_axes(eqn, side), keepdims=True)


def _dot(eqn: Any) -> Callable[[Array, Array], Array]:
    numbers = eqn.params["dimension_numbers"]
    return lambda a, b: jax.lax.dot_general(a, b, numbers, **_exactly(a))


def _convolve(eqn: Any, padding: Sequence[tuple[int, int]]) -> Callable[[Array, Array], Array]:
    kept = ("window_strides", "rhs_dilation", "dimension_numbers", "feature_group_count")
    params = {name: eqn.params[name] for name in kept}
    return lambda a, b: jax.lax.conv_general_dilated(a, b, padding=padding, **params, **_exactly(a))


def _padded(eqn: Any, a: Carried) -> tuple[Carried, Sequence[tuple[int, int]]]:
    """The image, and the padding that it lacks. Where it is shifted, it is padded here: with zero shifted."""
    padding = eqn.params["padding"]
    if a.shift is None:
        return a, padding
    edges = dict(zip(eqn.params["dimension_numbers"][0][2:], padding, strict=True))
    config = [(*edges.get(axis, (0, 0)), 0) for axis in range(a.integers.ndim)]
    zero = (-a.shift).astype(a.integers.dtype).reshape(())
    return a._replace(integers=jax.lax.pad(a.integers, zero, config)), [(0, 0)] * len(padding)


def _exactly(integers: Array) -> dict[str, Any]:
    """How sums are held. Accelerators would else round float32 before they multiply it."""
    if integers.dtype == jnp.int8:
        return {"preferred_element_type": jnp.int32}
    rounding = {"precision": jax.lax.Precision.HIGHEST} if integers.dtype == jnp.float32 else {}
    return {"preferred_element_type": jnp.float32, **rounding}


def _in_result(eqn: Any, numbers: Array, side: int) -> Array:
    """Numbers of an operand, which are constant along what is summed, in the axes of the result."""
    ndim = eqn.outvars[0].aval.ndim
    if not _is_dot(eqn):
        shape, outputs = [1] * ndim, eqn.params["dimension_numbers"][2][1]
        shape[outputs] = numbers.size  # of an image there is one number
        return numbers.reshape(shape)
    contracted, batched = ([*axes[side]] for axes in eqn.params["dimension_numbers"])
    free = [axis for axis in range(numbers.ndim) if axis not in contracted + batched]
    moved = numbers.transpose(batched + free + contracted)
    lead, own = moved.shape[: len(batched)], moved.shape[len(batched) : len(batched + free)]
    others = (1,) * (ndim - len(lead) - len(own))
    return moved.reshape((*lead, *others, *own) if side else (*lead, *own, *others))
