"""Matrix products and convolutions."""

from typing import Any

from evolq_jax.errors import UserError
from evolq_jax.integers.onnx.elementwise import Handler
from evolq_jax.integers.onnx.layout import Layout
from evolq_jax.integers.onnx.values import Tensor, Value, Weight, natural


def _dot_general(layout: Layout, eqn: Any, values: list[Value]) -> list[Value]:
    """`MatMul` of the operand with more free axes, [..., batch..., M, K], and the other [batch..., K, N]."""
    contracted, batched = eqn.params["dimension_numbers"]
    shapes = [tuple(atom.aval.shape) for atom in eqn.invars]
    free = [
        [axis for axis in range(len(shapes[i])) if axis not in (*contracted[i], *batched[i])] for i in (0, 1)
    ]
    many, one = (1, 0) if len(free[1]) > len(free[0]) else (0, 1)
    if len(free[one]) != 1 or not free[many] or len(contracted[0]) != 1:
        raise UserError("the network has a product of several axes at once: write it as a matrix product")
    *extra, rows = free[many]
    wanted = {
        many: (*extra, *batched[many], rows, *contracted[many]),
        one: (*batched[one], *contracted[one], *free[one]),
    }
    placed = {i: layout.tensor(layout.full(values[i], shapes[i]), wanted[i]) for i in (many, one)}
    name = _matmul(layout, placed[many], placed[one], weight=isinstance(values[one], Weight))
    # The equation's axes: batch, those free on the left, those free on the right.
    labels = [("batch", i) for i in range(len(batched[0]))]
    labels += [(side, axis) for side in (0, 1) for axis in free[side]]
    stored = [(many, axis) for axis in extra] + [("batch", i) for i in range(len(batched[0]))]
    stored += [(many, rows), (one, free[one][0])]
    order = tuple(labels.index(label) for label in stored)
    return [Tensor(name, tuple(eqn.outvars[0].aval.shape), order)]


def _matmul(layout: Layout, left: Tensor, right: Tensor, *, weight: bool) -> str:
    """The product, written so that onnxruntime multiplies integers where both are quantized, and only there.

    A weight is kept apart from a float operand by a Reshape: else both become MatMulNBits, which rounds that
    operand as well. Rows [B, K] become [B, 1, K]: else the product and a bias become Gemm, which is a float
    one.
    """
    node, integers = layout.graph.node, bool(left.site)
    matrix = (*natural(len(left.shape)),)
    if weight and integers and len(left.shape) == 2:
        rows = (left.stored[0], 1, left.stored[1])
        stacked = layout.reshaped(left._replace(shape=left.stored, order=matrix), rows)
        product = node("MatMul", layout.tensor(layout.values(stacked)).name, right.name)
        width = right.stored[-1]
        return layout.tensor(
            layout.reshaped(Tensor(product, (rows[0], 1, width), (0, 1, 2)), (rows[0], width))
        ).name
    if weight and not integers:
        right = right._replace(name=node("Reshape", right.name, layout.sizes(right.stored)))
    return node("MatMul", *(layout.tensor(layout.values(each)).name for each in (left, right)))


def _conv(layout: Layout, eqn: Any, values: list[Value]) -> list[Value]:
    params = eqn.params
    numbers = params["dimension_numbers"]
    if params["batch_group_count"] != 1 or set(params["lhs_dilation"]) != {1}:
        raise UserError("the network has a transposed convolution, which the ONNX writer does not know")
    left, right = (tuple(atom.aval.shape) for atom in eqn.invars)
    x = layout.tensor(layout.full(values[0], left), tuple(numbers.lhs_spec))
    x = layout.tensor(layout.values(x))
    weight = layout.tensor(layout.full(values[1], right), tuple(numbers.rhs_spec))
    name = layout.graph.node(
        "Conv",
        x.name,
        weight.name,
        group=params["feature_group_count"],
        kernel_shape=[right[axis] for axis in numbers.rhs_spec[2:]],
        strides=list(params["window_strides"]),
        dilations=list(params["rhs_dilation"]),
        pads=[pad[end] for end in (0, 1) for pad in params["padding"]],
    )
    return [Tensor(name, tuple(eqn.outvars[0].aval.shape), tuple(numbers.out_spec))]


PRODUCTS: dict[str, Handler] = {"dot_general": _dot_general, "conv_general_dilated": _conv}
