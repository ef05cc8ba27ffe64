"""Functions that ONNX has as operators of its own, by the names that they have in equations."""

from collections.abc import Callable
from typing import Any

import numpy as np

from evolq_jax.integers.onnx.elementwise import operate
from evolq_jax.integers.onnx.layout import Layout
from evolq_jax.integers.onnx.values import Constant, Value


def _gelu(layout: Layout, jaxpr: Any, values: list[Value]) -> Value | None:
    """`Gelu`, exact or with tanh. The quick form is a product with a sigmoid."""
    inside = {eqn.primitive.name for eqn in jaxpr.eqns}
    if not inside & {"erf", "erfc", "tanh"}:
        return None
    return operate(layout, "Gelu", *values, approximate="tanh" if "tanh" in inside else "none")


def _clip(layout: Layout, jaxpr: Any, values: list[Value]) -> Value | None:
    """`Clip` between two numbers."""
    del jaxpr
    bounds = [value.array for value in values[1:] if isinstance(value, Constant) and value.array.size == 1]
    if len(values) != 3 or len(bounds) != 2 or isinstance(values[0], Constant):
        return None
    low, high = (Constant(np.asarray(bound, np.float32).reshape(())) for bound in bounds)
    return operate(layout, "Clip", values[0], low, high)


def _hard_swish(layout: Layout, jaxpr: Any, values: list[Value]) -> Value:
    del jaxpr
    return operate(layout, "HardSwish", *values)


NAMED: dict[str, Callable[[Layout, Any, list[Value]], Value | None]] = {
    "gelu": _gelu,
    "clip": _clip,
    "hard_silu": _hard_swish,
    "hard_swish": _hard_swish,
}
