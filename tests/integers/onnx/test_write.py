"""What stands in a file: codes of the right type, exact numbers, and what it says of itself."""

import json
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evolq_jax.errors import UserError
from evolq_jax.integers.model import IntegerModel
from evolq_jax.integers.onnx.preprocessor import preprocessor_config
from evolq_jax.integers.onnx.proto import from_tensor
from evolq_jax.integers.onnx.read import check_onnx, read_onnx
from evolq_jax.integers.onnx.session import open_onnx
from evolq_jax.integers.onnx.trace import by_block
from evolq_jax.integers.onnx.write import write_onnx
from evolq_jax.models.reading.hugging_face_config import read_processor
from evolq_jax.quant.scheme import QuantConfig
from evolq_jax.typing import Preprocessing
from tests.families import make_small
from tests.integers.onnx.floor import distance, floor
from tests.integers.onnx.small import small_model

onnx = pytest.importorskip("onnx", reason="onnx is not installed: pip install 'evolq_jax[onnx]'")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: as onnx")

NAME = "small_beit"
PLAIN: dict[str, Any] = {
    "softmax_quantizer": "uniform",
    "gelu_quantizer": "uniform",
    "activation_observer": "omse",
}


LOGARITHMS = QuantConfig("matmul", activation_bits=4, activation_observer="omse")


def stored_arrays(path: Path) -> dict[str, np.ndarray]:
    """The stored arrays by name, each in the order of the model's axes. Codes of a few bits are int8."""
    description, proto = read_onnx(path)
    found: dict[str, np.ndarray] = {}
    for tensor in proto.graph.initializer:
        array = from_tensor(tensor)
        order = description["orders"].get(tensor.name, range(array.ndim))
        found[tensor.name] = array.transpose(np.argsort(order)) if array.ndim else array
    return found


def types_of(path: Path) -> dict[str, str]:
    proto = onnx.load(path)
    return {t.name: onnx.TensorProto.DataType.Name(t.data_type) for t in proto.graph.initializer}


@pytest.mark.parametrize(
    ("name", "quant", "given", "kind"),
    [
        (NAME, QuantConfig("deploy"), {}, "INT4"),
        (NAME, QuantConfig("deploy", weight_bits=2), {}, "INT2"),
        (NAME, QuantConfig("deploy", weight_bits=3), {}, "INT4"),
        (NAME, QuantConfig("deploy", weight_bits=5), {}, "INT8"),
        (NAME, QuantConfig("deploy", signed_activations=True), {}, "INT4"),
        (NAME, QuantConfig("deploy", signed_activations=True), {"target": "tensorrt"}, "INT4"),
        (NAME, QuantConfig("matmul", activation_bits=4, **PLAIN), {}, "INT4"),
        (NAME, QuantConfig("matmul", activation_bits=4, signed_activations=True, **PLAIN), {}, "INT4"),
        (NAME, LOGARITHMS, {"allow_float": True}, "INT4"),
        ("small_levit", QuantConfig("deploy", weight_bits=2), {}, "INT2"),
    ],
)  # fmt: skip
def test_weights_and_activations_of_any_bits(
    name: str, quant: QuantConfig, given: dict[str, Any], kind: str, tmp_path: Path
) -> None:
    model, images = small_model(name, quant), make_small(name).images
    path = write_onnx(model, tmp_path / "q.onnx", **given)
    onnx.checker.check_model(onnx.load(path), full_check=True)
    weight = "mlp.fc1.weight.codes" if name == NAME else "mlp.ln1.weight.codes"
    found = {found for stored, found in types_of(path).items() if stored.endswith(weight)}
    assert found == ({kind} if kind != "INT2" or hasattr(onnx.TensorProto, "INT2") else {"INT4"})
    wanted, nearest = floor(model, images)
    assert distance(open_onnx(path)(images), wanted).error < max(
        2 * nearest.error, 1e-6, 0.04 * (name != NAME)
    )
    check_onnx(path, model)


@pytest.mark.parametrize("kind", ["deployed", "affine"])
def test_stored_weights_decode_bit_for_bit(kind: str, tmp_path: Path) -> None:
    quant = QuantConfig("deploy") if kind == "deployed" else QuantConfig("matmul", weight_bits=3, **PLAIN)
    model = small_model("small_levit", quant)
    stored = stored_arrays(write_onnx(model, tmp_path / "q.onnx"))
    for name, weight in model.weights.items():
        values = (weight.codes.astype(np.float32) - weight.zero_point.astype(np.float32)) * weight.scale
        for block, wanted in by_block(model, name, values).items():
            codes, scale, zero_point = (
                stored[f"{block}.{part}"] for part in ("codes", "scale", "zero_point")
            )
            found = (codes.astype(np.float32) - zero_point.astype(np.float32)) * scale
            np.testing.assert_array_equal(found, wanted)
    for name, array in model.float_params.items():
        for block, wanted in by_block(model, name, array).items():
            np.testing.assert_array_equal(stored[block], wanted)


def test_blocks_of_other_bits(tmp_path: Path) -> None:
    name = "blocks/attn/qkv/weight"
    model, images = small_model(NAME, QuantConfig("deploy"), ((name, (2, 7)),)), make_small(NAME).images
    path = write_onnx(model, tmp_path / "q.onnx")
    kinds = [types_of(path)[f"blocks.{block}.attn.qkv.weight.codes"] for block in (0, 1)]
    assert kinds == ["INT2" if hasattr(onnx.TensorProto, "INT2") else "INT4", "INT8"]
    wanted, nearest = floor(model, images)
    assert distance(open_onnx(path)(images), wanted).error < max(2 * nearest.error, 1e-6)


def test_tensorrt_has_no_casts_and_no_zero_points(tmp_path: Path) -> None:
    model = small_model(NAME, QuantConfig("deploy", signed_activations=True))
    path = write_onnx(model, tmp_path / "q.onnx", target="tensorrt")
    proto = onnx.load(path)
    assert "Cast" not in {node.op_type for node in proto.graph.node}
    quantized = {n.output[0] for n in proto.graph.node if n.op_type == "QuantizeLinear"}
    for node in proto.graph.node:  # Q and DQ stand together
        if node.op_type == "DequantizeLinear":
            assert node.input[0] in quantized or node.input[0].endswith(".codes")
    zeros = {k: v for k, v in stored_arrays(path).items() if k.endswith(".zero_point")}
    assert zeros
    assert not any(array.any() for array in zeros.values())


def test_what_no_file_can_hold_is_refused(
    model: IntegerModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evolq_jax.integers.onnx.write.MOST", 1000)
    with pytest.raises(UserError, match="an ONNX file holds 2 GiB: export it as stablehlo"):
        write_onnx(model, tmp_path / "q.onnx")
    assert not any(tmp_path.iterdir())


def test_what_was_allowed_in_float_is_recorded(tmp_path: Path) -> None:
    model = small_model(NAME, LOGARITHMS)
    description, _ = read_onnx(write_onnx(model, tmp_path / "q.onnx", allow_float=True))
    assert description["about"]["allowed_floats"] == ["blocks/attn/softmax", "blocks/mlp/gelu"]
    assert description["target"] == "onnxruntime"


INTEGER_OPS: dict[str, Any] = {
    "activation_observer": "omse",
    "residual_observer": "omse",
    "integer_layer_norm": True,
}


@pytest.mark.parametrize(
    ("quant", "target", "message"),
    [
        (QuantConfig("matmul"), "onnxruntime", "'blocks/norm1' has a scale for each channel.*scheme deploy"),
        (
            LOGARITHMS,
            "onnxruntime",
            "the quantizer 'log', whose codes no ONNX runtime multiplies.*scheme deploy.*--allow-float",
        ),
        (QuantConfig("fully_quantized", **INTEGER_OPS), "onnxruntime", "is a LayerNorm in integers.*deploy"),
        (QuantConfig("deploy"), "tensorrt", "has a zero point, and TensorRT.*quant.signed_activations"),
        (
            QuantConfig("matmul", signed_activations=True, **PLAIN),
            "tensorrt",
            "weight' has zero points, and TensorRT has none.*quant.signed_weights",
        ),
    ],
)
def test_what_it_cannot_express_is_refused(
    quant: QuantConfig, target: Any, message: str, tmp_path: Path
) -> None:
    model = small_model(NAME, quant)
    with pytest.raises(UserError, match=message):
        write_onnx(model, tmp_path / "q.onnx", target=target)
    assert not any(tmp_path.iterdir())


@pytest.fixture(scope="module")
def model() -> IntegerModel:
    return small_model(NAME, QuantConfig("deploy"))


def edit(path: Path, change: Callable[[Any], None]) -> None:
    proto = onnx.load(path)
    change(proto)
    path.write_bytes(proto.SerializeToString())


@pytest.mark.parametrize(
    "name",
    ["blocks.1.attn.qkv.weight.codes", "blocks.0.norm2.scale", "blocks.0.norm2.zero_point", "norm.weight"],
)
def test_an_edited_tensor_is_refused_by_name(name: str, model: IntegerModel, tmp_path: Path) -> None:
    path = write_onnx(model, tmp_path / "q.onnx")

    def change(proto: Any) -> None:
        (tensor,) = (t for t in proto.graph.initializer if t.name == name)
        tensor.raw_data = bytes([tensor.raw_data[0] ^ 1]) + tensor.raw_data[1:]

    edit(path, change)
    with pytest.raises(UserError, match=f"the tensor '{name}' was changed"):
        open_onnx(path)


def test_an_edited_graph_is_refused(model: IntegerModel, tmp_path: Path) -> None:
    path = write_onnx(model, tmp_path / "q.onnx")
    edit(path, lambda proto: proto.graph.node.pop())
    with pytest.raises(UserError, match="its graph was changed"):
        read_onnx(path)


def test_another_model_is_told_by_name(model: IntegerModel, tmp_path: Path) -> None:
    path = write_onnx(model, tmp_path / "q.onnx")
    scale = model.qparams["blocks/norm2"].scale.at[1].mul(np.float32(1.0000002))
    other = {**model.qparams, "blocks/norm2": model.qparams["blocks/norm2"]._replace(scale=scale)}
    with pytest.raises(UserError, match=r"the tensor 'blocks\.1\.norm2\.scale' differs"):
        check_onnx(path, model.replace(qparams=other))  # type: ignore[attr-defined]


@pytest.mark.parametrize("keep", [0, 100, -3])
def test_other_files_are_refused(keep: int, model: IntegerModel, tmp_path: Path) -> None:
    path = write_onnx(model, tmp_path / "q.onnx")
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UserError, match=r"q.onnx' (is truncated|is no ONNX file of evolq_jax)"):
        open_onnx(path)
    with pytest.raises(UserError, match="no file at"):
        open_onnx(tmp_path / "none.onnx")


def test_images_of_another_shape_are_refused(model: IntegerModel, tmp_path: Path) -> None:
    opened = open_onnx(write_onnx(model, tmp_path / "q.onnx"), threads=1)
    with pytest.raises(UserError, match=r"reads images \[B, 16, 16, 3\], not \[2, 8, 8, 3\]"):
        opened(np.zeros((2, 8, 8, 3), np.uint8))


@pytest.mark.parametrize(
    "preprocessing",
    [
        Preprocessing(),
        Preprocessing(224, 256, "bilinear", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        Preprocessing(32, None, "bicubic"),
        Preprocessing(224, 224, "lanczos", crop_mode="squash"),
        Preprocessing(224, 256, "box", crop_mode="squash"),
    ],
)
def test_preprocessing_is_told_as_hugging_face_does(preprocessing: Preprocessing) -> None:
    told = json.loads(json.dumps(preprocessor_config(preprocessing)))
    usual = Preprocessing(10, 11, "nearest", (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    again = read_processor(Path("preprocessor_config.json"), told, usual)
    assert again == (preprocessing if preprocessing.resize else Preprocessing(32, None, "bicubic"))


def test_it_lies_beside_the_file(model: IntegerModel, tmp_path: Path) -> None:
    write_onnx(model, tmp_path / "q.onnx")
    names = {file.name for file in tmp_path.iterdir()}
    assert names == {"q.onnx", "preprocessor_config.json", "classes.json"}
    assert json.loads((tmp_path / "preprocessor_config.json").read_text()) == preprocessor_config(
        model.preprocessing
    )


IN_OPENVINO = """
import sys
import numpy as np
import openvino
path, images, logits = sys.argv[1:]
np.save(logits, openvino.compile_model(path, "CPU")([np.load(images)])[0])
"""


@pytest.mark.skipif(find_spec("openvino") is None, reason="OpenVINO is not installed: pip install openvino")
def test_openvino_agrees(model: IntegerModel, tmp_path: Path) -> None:
    """In a process of its own: OpenVINO forks when it is imported, which JAX's threads do not bear."""
    path, images = write_onnx(model, tmp_path / "q.onnx"), make_small(NAME).images
    given, found = tmp_path / "images.npy", tmp_path / "logits.npy"
    np.save(given, np.ascontiguousarray(np.moveaxis(np.asarray(images), -1, 1)))
    subprocess.run([sys.executable, "-c", IN_OPENVINO, path, given, found], check=True, capture_output=True)
    logits, wanted = np.load(found), np.asarray(model(images))
    assert distance(logits, wanted).agreement >= 11 / 12
    assert distance(logits, wanted).error < 0.1
