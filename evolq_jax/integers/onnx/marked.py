"""Marked equations: quantizers, weights, LayerNorm and softmax."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from evolq_jax.integers.marks import DECODE, ENCODE, LAYER_NORM, SOFTMAX, read_mark
from evolq_jax.integers.onnx.elementwise import operate
from evolq_jax.integers.onnx.layout import Layout
from evolq_jax.integers.onnx.trace import tensor_name
from evolq_jax.integers.onnx.values import Constant, Parameter, Tensor, Value, Weight, shape_of
from evolq_jax.quant.qparams import SiteQParams
from evolq_jax.quant.quantizers.uniform import int_range
from evolq_jax.quant.spec import QuantSpec

Inside = Callable[[Sequence[Value]], Sequence[Value]]  # writes what is inside an equation


class Numbered(NamedTuple):
    """A quantizer with its numbers."""

    name: str  # of its site in the graph
    spec: QuantSpec
    scale: np.ndarray
    zero_point: np.ndarray
    bits: int


@dataclass(frozen=True)
class Marks:
    """Writes marked equations.

    Attributes:
      specs: how each marked site is quantized.
    """

    specs: Mapping[str, QuantSpec]

    def write(self, name: str, layout: Layout, values: list[Value], inside: Inside) -> Value | None:
        """What an equation of this name gives. None: it is not marked."""
        mark = read_mark(name)
        if mark is None:
            return None
        kind, site = mark
        if kind == LAYER_NORM:
            return _layer_norm(layout, values)
        if kind == SOFTMAX:
            return _softmax(layout, values)
        *numbers, value = values
        scale, zero_point, bits = map(_array, numbers)
        name, spec = tensor_name(site), self.specs[site]
        quantizer = Numbered(name, spec, scale, zero_point, int(bits.item()))
        if kind == ENCODE:
            if spec.quantizer.equal_steps:
                return _quantize(layout, quantizer, value)
            return inside([*map(Constant, (scale, zero_point, bits)), value])[0]
        assert kind == DECODE
        if isinstance(value, Parameter):
            return Weight(name, value.array, scale, zero_point, quantizer.bits, spec.signed)
        if spec.quantizer.equal_steps:
            return layout.tensor(value)._replace(site=name)
        return _from_table(layout, quantizer, value)


def _array(value: Value) -> np.ndarray:
    assert isinstance(value, Parameter | Constant)
    return value.array


def _quantize(layout: Layout, quantizer: Numbered, value: Value) -> Tensor:
    """`QuantizeLinear` to 8 bits. Values for fewer are clipped first, which gives the same codes.

    Signed codes are written as unsigned ones, 128 higher, unless the runtime wants symmetric ones:
    onnxruntime leaves several products of signed activations in float.
    """
    name, spec = quantizer.name, quantizer.spec
    scale, zero_point = (np.asarray(each, np.float32).reshape(()) for each in quantizer[2:4])
    if quantizer.bits < 8:
        ends = int_range(spec.signed, jnp.float32(quantizer.bits))
        low, high = (Constant(np.asarray((np.asarray(end) - zero_point) * scale)) for end in ends)
        value = operate(layout, "Clip", value, low, high)
    layout.graph.store(f"{name}.scale", scale)
    raised = spec.signed and not layout.symmetric
    zero_point = (zero_point + 128 * raised).astype(np.int8 if spec.signed and not raised else np.uint8)
    layout.graph.store(f"{name}.zero_point", np.asarray(zero_point))
    found = layout.tensor(layout.values(value))
    return found if layout.symmetric else found._replace(name=layout.quantize(found.name, name))


def _from_table(layout: Layout, quantizer: Numbered, value: Value) -> Tensor:
    """Values of codes, which lie between the ends of their range, from a table."""
    spec, kind = quantizer.spec, quantizer.spec.quantizer
    scale, zero_point, bits = (jnp.asarray(each, jnp.float32).reshape(()) for each in quantizer[2:])
    low, high = (float(end) for end in kind.code_range(spec, bits))
    table = kind.decode(spec, SiteQParams(scale, zero_point, bits), jnp.arange(low, high + 1))
    layout.graph.store(f"{quantizer.name}.table", np.asarray(table))
    shifted = operate(layout, "Sub", value, Constant(np.asarray(low, np.float32))) if low else value
    index = layout.tensor(operate(layout, "Cast", shifted, to=7))
    return index._replace(name=layout.graph.node("Gather", f"{quantizer.name}.table", index.name, axis=0))


def _layer_norm(layout: Layout, values: list[Value]) -> Tensor:
    weight, bias, x, eps = values
    found = layout.natural(layout.values(x))
    names = [layout.natural(value).name for value in (weight, bias)]
    epsilon = float(_array(eps))
    name = layout.graph.node("LayerNormalization", found.name, *names, axis=-1, epsilon=epsilon)
    return found._replace(name=name)


def _softmax(layout: Layout, values: list[Value]) -> Tensor:
    (logits,) = values
    found = layout.natural(layout.values(logits))
    last = len(shape_of(found)) - 1
    return found._replace(name=layout.graph.node("Softmax", found.name, axis=last))
