"""Primitives that work on every number by itself."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from evolq_jax.integers.onnx.layout import Layout
from evolq_jax.integers.onnx.values import (
    Constant,
    Order,
    Parameter,
    Tensor,
    Value,
    joint_shape,
    natural,
    shape_of,
)

Handler = Callable[[Layout, Any, list[Value]], Sequence[Value]]
ONNX_TYPES = {"float32": 1, "uint8": 2, "int8": 3, "int32": 6, "int64": 7, "bool": 9}


def operate(layout: Layout, op: str, *values: Value, **attributes: Any) -> Tensor:
    """An operator of one number or more, with numpy's broadcasting."""
    values = tuple(map(layout.values, values))
    shape = joint_shape(*map(shape_of, values))
    order = _common_order(values, shape)
    placed = [aligned(layout, value, order) for value in values]
    name = layout.graph.node(op, *(each.name for each in placed), **attributes)
    missing = min(len(shape) - len(each.shape) + each.missing for each in placed)
    return Tensor(name, shape, order, missing)


def _common_order(values: Sequence[Value], shape: tuple[Any, ...]) -> Order:
    """That of the first operand in the graph that has all axes, so that the larger ones stay as they are."""
    placed = [v for v in values if isinstance(v, Tensor) and len(v.shape) == len(shape) and not v.missing]
    whole = [value for value in placed if value.shape == shape]
    found = (whole or placed or [None])[0]
    return natural(len(shape)) if found is None else found.order


def aligned(layout: Layout, value: Value, order: Order) -> Tensor:
    """The value so that it broadcasts against values of this order."""
    rank, plain = len(order), order == natural(len(order))
    if isinstance(value, Constant):
        return _aligned_constant(layout, value.array, order)
    if plain and isinstance(value, Parameter):
        return layout.tensor(value)
    if plain and isinstance(value, Tensor) and value.order == natural(len(value.shape)):
        return value
    shape = shape_of(value)
    return layout.tensor(layout.reshaped(value, (1,) * (rank - len(shape)) + shape), order)


def _aligned_constant(layout: Layout, array: np.ndarray, order: Order) -> Tensor:
    if array.size == 1:
        array = array.reshape(())
        return Tensor(layout.graph.constant(array), (), ())
    array = array.reshape((1,) * (len(order) - array.ndim) + array.shape)
    missing = next(i for i, axis in enumerate(order) if array.shape[axis] > 1)
    stored = array.transpose(order)
    name = layout.graph.constant(stored.reshape(stored.shape[missing:]))
    return Tensor(name, array.shape, order, missing)


def _plain(op: str) -> Handler:
    return lambda layout, eqn, values: [operate(layout, op, *values)]


def _same(layout: Layout, eqn: Any, values: list[Value]) -> list[Value]:
    del layout, eqn
    return values


def _with_number(op: str, number: float, *, first: bool = False) -> Handler:
    def write(layout: Layout, eqn: Any, values: list[Value]) -> list[Value]:
        del eqn
        constant = Constant(np.float32(number))  # type: ignore[arg-type]
        ordered = [constant, *values] if first else [*values, constant]
        return [operate(layout, op, *ordered)]

    return write


def _integer_pow(layout: Layout, eqn: Any, values: list[Value]) -> list[Value]:
    if eqn.params["y"] == 2:
        return [operate(layout, "Mul", values[0], values[0])]
    return _with_number("Pow", eqn.params["y"])(layout, eqn, values)  # type: ignore[return-value]


def _rsqrt(layout: Layout, eqn: Any, values: list[Value]) -> list[Value]:
    del eqn
    return [operate(layout, "Reciprocal", operate(layout, "Sqrt", *values))]


def _erfc(layout: Layout, eqn: Any, values: list[Value]) -> list[Value]:
    return _with_number("Sub", 1.0, first=True)(layout, eqn, [operate(layout, "Erf", *values)])  # type: ignore[return-value]


def _ne(layout: Layout, eqn: Any, values: list[Value]) -> list[Value]:
    del eqn
    return [operate(layout, "Not", operate(layout, "Equal", *values))]


def _log1p(layout: Layout, eqn: Any, values: list[Value]) -> list[Value]:
    return [operate(layout, "Log", *_with_number("Add", 1.0)(layout, eqn, values))]


def _log2(layout: Layout, eqn: Any, values: list[Value]) -> list[Value]:
    """ONNX has the natural logarithm. JAX 0.10 divides it likewise."""
    return _with_number("Div", math.log(2.0))(layout, eqn, [operate(layout, "Log", *values)])  # type: ignore[return-value]


def _exp2(layout: Layout, eqn: Any, values: list[Value]) -> list[Value]:
    return _with_number("Pow", 2.0, first=True)(layout, eqn, values)  # type: ignore[return-value]


def _select(layout: Layout, eqn: Any, values: list[Value]) -> list[Value]:
    del eqn
    which, no, yes = values
    return [operate(layout, "Where", which, yes, no)]


def _clamp(layout: Layout, eqn: Any, values: list[Value]) -> list[Value]:
    del eqn
    low, x, high = values
    return [operate(layout, "Min", operate(layout, "Max", x, low), high)]


def _convert(layout: Layout, eqn: Any, values: list[Value]) -> list[Value]:
    source, target = eqn.invars[0].aval.dtype.name, np.dtype(eqn.params["new_dtype"]).name
    return values if source == target else [operate(layout, "Cast", *values, to=ONNX_TYPES[target])]


def _max(layout: Layout, eqn: Any, values: list[Value]) -> list[Value]:
    del eqn
    x, low = values if isinstance(values[1], Constant) else values[::-1]
    zero = isinstance(low, Constant) and low.array.size == 1 and not low.array.item()
    return [operate(layout, "Relu", x) if zero else operate(layout, "Max", x, low)]


def _add(layout: Layout, eqn: Any, values: list[Value]) -> list[Value]:
    """A sum. A convolution takes the bias that is added to it as its own."""
    del eqn
    for x, bias in (values, values[::-1]):
        node = layout.graph.producers.get(x.name) if isinstance(x, Tensor) else None
        if node is None or node.op != "Conv" or len(node.inputs) > 2 or not isinstance(bias, Tensor):
            continue
        fits = bias.name in layout.graph.initializers and len(bias.stored) == 1 and bias.missing
        if fits and isinstance(x, Tensor) and x.name not in layout.shared:
            node.inputs.append(bias.name)
            return [x]
    return [operate(layout, "Add", *values)]


ELEMENTWISE: dict[str, Handler] = {
    **{
        primitive: _plain(op)
        for primitive, op in {
            "sub": "Sub",
            "mul": "Mul",
            "div": "Div",
            "min": "Min",
            "neg": "Neg",
            "abs": "Abs",
            "sign": "Sign",
            "floor": "Floor",
            "ceil": "Ceil",
            "round": "Round",
            "exp": "Exp",
            "log": "Log",
            "sqrt": "Sqrt",
            "tanh": "Tanh",
            "logistic": "Sigmoid",
            "erf": "Erf",
            "pow": "Pow",
            "lt": "Less",
            "le": "LessOrEqual",
            "gt": "Greater",
            "ge": "GreaterOrEqual",
            "eq": "Equal",
            "and": "And",
            "or": "Or",
            "not": "Not",
        }.items()
    },
    **dict.fromkeys(("copy", "copy_p", "stop_gradient"), _same),
    "add": _add,
    "max": _max,
    "integer_pow": _integer_pow,
    "square": lambda layout, eqn, values: [operate(layout, "Mul", values[0], values[0])],
    "rsqrt": _rsqrt,
    "erfc": _erfc,
    "exp2": _exp2,
    "log1p": _log1p,
    "log2": _log2,
    "ne": _ne,
    "select_n": _select,
    "clamp": _clamp,
    "convert_element_type": _convert,
}
