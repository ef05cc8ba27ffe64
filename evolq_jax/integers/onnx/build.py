"""From an integer model to a graph."""

from typing import Literal

from evolq_jax.integers.model import IntegerModel
from evolq_jax.integers.onnx.graph import INPUT, OUTPUT, Graph
from evolq_jax.integers.onnx.layout import Layout
from evolq_jax.integers.onnx.marked import Marks
from evolq_jax.integers.onnx.trace import Traced, trace
from evolq_jax.integers.onnx.translate import Translation
from evolq_jax.integers.onnx.values import Parameter, Tensor

Target = Literal["onnxruntime", "tensorrt"]
OPSET, WITH_INT2 = 21, 25
NARROW = {3: "INT4", 4: "INT4"}


def build_graph(model: IntegerModel, target: Target) -> Graph:
    """The network from `pixel_values` [B, channels, height, width] to `logits` [B, C]."""
    traced = trace(model)
    narrow = NARROW | {2: "INT2" if _has_int2() and target == "onnxruntime" else "INT4"}
    used = {narrow.get(width) for weight in model.weights.values() for width in weight.bits.tolist()}
    shape = tuple(traced.jaxpr.out_avals[0].shape)
    graph = Graph(WITH_INT2 if "INT2" in used else OPSET, shape[-1])
    layout = Layout(graph, traced.batch, narrow, symmetric=target == "tensorrt")
    (logits,) = Translation(layout, Marks(traced.specs)).run(
        traced.jaxpr.jaxpr, traced.jaxpr.consts, _inputs(model, traced)
    )
    graph.node("Identity", layout.natural(layout.values(layout.full(logits, shape))).name, name=OUTPUT)
    return graph


def _inputs(model: IntegerModel, traced: Traced) -> list[Parameter | Tensor]:
    arrays = [Parameter(name, array) for name, array in traced.arrays.items()]
    return [*arrays, Tensor(INPUT, (traced.batch, *model.image_shape), (0, 3, 1, 2))]


def _has_int2() -> bool:
    from onnx import TensorProto

    return hasattr(TensorProto, "INT2")
