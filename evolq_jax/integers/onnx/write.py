"""Writes ONNX files."""

import json
from dataclasses import replace
from pathlib import Path

from evolq_jax.errors import UserError
from evolq_jax.integers.describe import KEY, describe, sealed
from evolq_jax.integers.model import IntegerModel
from evolq_jax.integers.onnx.build import Target, build_graph
from evolq_jax.integers.onnx.preprocessor import FILENAME, preprocessor_config
from evolq_jax.integers.onnx.proto import need_onnx, to_proto
from evolq_jax.integers.onnx.read import checksums
from evolq_jax.integers.onnx.refuse import check
from evolq_jax.integers.whole_file import write_whole
from evolq_jax.network.network import Network
from evolq_jax.paths import user_path

CLASSES = "classes.json"  # names, by index; null: not known
MOST = 2**31 - 2**24  # bytes of the arrays: protobuf's limit, less what else a file holds


def write_onnx(
    model: IntegerModel, path: str | Path, *, target: Target = "onnxruntime", allow_float: bool = False
) -> Path:
    """Writes an ONNX file, with `preprocessor_config.json` and `classes.json` beside it.

    The input `pixel_values` are normalised images, float32 [B, channels, height, width] with any B. The
    output `logits` are float32 [B, C]. A weight is `INT4 or INT8 -> Cast(INT8) -> DequantizeLinear`. An
    activation is rounded by QuantizeLinear to 8 bits, and clipped before where it has fewer.

    Args:
      model: the model.
      path: of the file.
      target: what will run it. `tensorrt`: codes are not cast, and nothing may have a zero point.
      allow_float: whether products of logarithmic and twin codes may run in float. The file records them.

    Raises:
      UserError: the target cannot express a site; onnx is not installed; or the file cannot be written, or
        would be larger than ONNX allows.
    """
    need_onnx()
    path = user_path(path, "file")
    in_float = check(model, target, allow_float=allow_float)
    model = replace(model, about=replace(model.about, allowed_floats=in_float))
    graph = build_graph(model, target)
    stored = sum(initializer.array.nbytes for initializer in graph.initializers.values())
    if stored > MOST:
        raise UserError(
            f"the network's arrays take {stored / 2**30:.1f} GiB, and an ONNX file holds 2 GiB: export it as "
            "stablehlo or safetensors"
        )
    proto = to_proto(graph, model.image_shape)
    orders = {
        name: list(i.order) for name, i in graph.initializers.items() if i.order != (*range(i.array.ndim),)
    }
    description = {**describe(model), "target": target, "orders": orders, "checksums": checksums(proto)}
    entry = proto.metadata_props.add()
    entry.key, entry.value = KEY, sealed(description)
    write_whole(path, proto.SerializeToString())
    config = json.dumps(preprocessor_config(model.preprocessing), indent=2) + "\n"
    write_whole(path.with_name(FILENAME), config.encode())
    write_whole(path.with_name(CLASSES), (json.dumps(model.about.class_names, indent=1) + "\n").encode())
    return path


def write_float_onnx(network: Network, path: str | Path) -> Path:
    """Writes the float network in the same way: what a quantized file is compared with.

    Raises:
      UserError: onnx is not installed, or the file cannot be written.
    """
    model = IntegerModel(
        network.parts,
        network.params,
        {},
        (),
        network.preprocessing,
        network.name,
        network.config,
        network.precision,
    )
    return write_onnx(model, path)
