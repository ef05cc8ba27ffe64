"""A graph as ONNX's own message, and its stored arrays back."""

from typing import TYPE_CHECKING, Any

import numpy as np

from evolq_jax.errors import UserError
from evolq_jax.integers.bitstream import pack, unpack
from evolq_jax.integers.onnx.graph import INPUT, OUTPUT, Graph, Initializer
from evolq_jax.version import __version__

if TYPE_CHECKING:
    from onnx import ModelProto, TensorProto

IR_VERSIONS = {21: 10, 25: 13}  # the lowest that has the operators' types
NARROW = {"INT2": 2, "INT4": 4}
NUMPY = {"FLOAT": "<f4", "UINT8": "u1", "INT8": "i1", "INT32": "<i4", "INT64": "<i8", "BOOL": "?"}


def need_onnx() -> None:
    """Refuses where onnx is not installed.

    Raises:
      UserError: it is not.
    """
    try:
        import onnx  # noqa: F401  # pyright: ignore[reportUnusedImport]
    except ImportError as error:
        raise UserError("this needs onnx: pip install 'evolq_jax[onnx]'") from error


def to_proto(graph: Graph, image_shape: tuple[int, int, int]) -> "ModelProto":
    """The graph as a message, without metadata. Images have this height, width and number of channels."""
    from onnx import TensorProto, helper

    height, width, channels = image_shape
    float32 = TensorProto.FLOAT
    made = helper.make_graph(
        [
            helper.make_node(node.op, node.inputs, node.outputs, name=node.outputs[0], **node.attributes)
            for node in graph.nodes
        ],
        "evolq_jax",
        [helper.make_tensor_value_info(INPUT, float32, ["batch", channels, height, width])],
        [helper.make_tensor_value_info(OUTPUT, float32, ["batch", graph.num_classes])],
        [to_tensor(name, initializer) for name, initializer in graph.initializers.items()],
    )
    return helper.make_model(
        made,
        opset_imports=[helper.make_opsetid("", graph.opset)],
        ir_version=IR_VERSIONS[graph.opset],
        producer_name="evolq_jax",
        producer_version=__version__,
    )


def to_tensor(name: str, initializer: Initializer) -> "TensorProto":
    """A stored array. Two codes of four bits share a byte, or four of two."""
    from onnx import TensorProto

    array, kind = initializer.array, initializer.kind
    if kind in NARROW:
        raw = pack(array.reshape(-1), NARROW[kind]).tobytes()
    else:
        raw = array.astype(NUMPY[kind]).tobytes()
    return TensorProto(name=name, dims=array.shape, data_type=TensorProto.DataType.Value(kind), raw_data=raw)


def from_tensor(tensor: Any) -> np.ndarray:
    """A stored array. Narrow codes come as int8."""
    from onnx import TensorProto

    kind, shape = TensorProto.DataType.Name(tensor.data_type), tuple(tensor.dims)
    raw = np.frombuffer(tensor.raw_data, np.uint8)
    if kind in NARROW:
        return unpack(raw, NARROW[kind], shape, signed=True)
    return raw.view(NUMPY[kind]).reshape(shape)
