"""Reads what an ONNX file says of itself, and compares what it holds with a model."""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evolq_jax.errors import UserError
from evolq_jax.integers.describe import KEY, checksum, unsealed
from evolq_jax.integers.model import IntegerModel
from evolq_jax.integers.onnx.build import build_graph
from evolq_jax.integers.onnx.proto import from_tensor, need_onnx, to_tensor
from evolq_jax.paths import user_path

if TYPE_CHECKING:
    from onnx import ModelProto

GRAPH = "graph"  # of the checksums: the nodes


def read_onnx(path: str | Path) -> tuple[dict[str, Any], "ModelProto"]:
    """What `write_onnx` wrote: what the file says of itself, and its content.

    Raises:
      UserError: there is no such file, it is none of ours, or it was truncated or edited.
    """
    path = user_path(path, "file")
    proto = _load(path)
    description = _description(path, proto)
    found, said = checksums(proto), description.get("checksums", {})
    for name in {**said, **found}:
        if found.get(name) != said.get(name):
            what = "its graph" if name == GRAPH else f"the tensor '{name}'"
            raise UserError(f"'{path}': {what} was changed or lost: export the network again")
    return description, proto


def check_onnx(path: str | Path, model: IntegerModel) -> None:
    """Compares every stored array of a file with the model, exactly.

    Raises:
      UserError: as `read_onnx`; or an array differs, and the message names the first one.
    """
    description, proto = read_onnx(path)
    graph = build_graph(model, description["target"])
    stored = {tensor.name: tensor for tensor in proto.graph.initializer}
    for name, initializer in graph.initializers.items():
        if name not in stored:
            raise UserError(f"'{path}' lacks the tensor '{name}' of the model")
        wanted = to_tensor(name, initializer)
        same = stored[name].data_type == wanted.data_type and stored[name].dims == wanted.dims
        if not same or stored[name].raw_data != wanted.raw_data:
            raise UserError(f"'{path}': the tensor '{name}' differs from the model's")
    if unknown := set(stored) - set(graph.initializers):
        raise UserError(f"'{path}' holds the tensors {', '.join(sorted(unknown))}, which the model has not")


def checksums(proto: "ModelProto") -> dict[str, str]:
    """Of the nodes, and of every stored array by name."""
    digest = hashlib.sha256()
    for node in proto.graph.node:
        digest.update(node.SerializeToString(deterministic=True))
    tensors = {tensor.name: checksum(tensor.name, from_tensor(tensor)) for tensor in proto.graph.initializer}
    return {GRAPH: digest.hexdigest()[:32], **tensors}


def _description(path: Path, proto: "ModelProto") -> dict[str, Any]:
    metadata = {entry.key: entry.value for entry in proto.metadata_props}
    if KEY not in metadata:
        raise UserError(
            f"'{path}' is no ONNX file of evolq_jax: `evolq export RUN --format onnx` writes such"
        )
    return unsealed(metadata[KEY], path)


def _load(path: Path) -> "ModelProto":
    need_onnx()
    import onnx

    if not path.is_file():
        raise UserError(f"no file at '{path}'")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read '{path}': {error.strerror}") from error
    try:
        return onnx.load_model_from_string(content)
    except Exception as error:  # protobuf's, whichever of its implementations is installed
        raise UserError(f"'{path}' is truncated or no ONNX file: export the network again") from error
