"""onnxruntime multiplies integers: no product of quantized operands falls back to float."""

from pathlib import Path

import pytest

from evolq_jax.integers.onnx.write import write_onnx
from evolq_jax.quant.scheme import QuantConfig
from tests.integers.onnx.fused import fused_operators
from tests.integers.onnx.small import small_model

pytest.importorskip("onnx", reason="onnx is not installed: pip install 'evolq_jax[onnx]'")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: as onnx")

DEPLOY = QuantConfig("deploy")
SUMS = QuantConfig("deploy", quantize_sums=True, quantize_image=True)
FLOAT_PRODUCTS = ("MatMul", "FusedMatMul", "Gemm", "Conv", "FusedConv")


@pytest.mark.parametrize("quant", [DEPLOY, QuantConfig("deploy", signed_activations=True)])
@pytest.mark.parametrize(("name", "blocks", "others"), [("small_beit", 2, 1), ("small_swin", 6, 2)])
def test_products_of_a_transformer(
    name: str, blocks: int, others: int, quant: QuantConfig, tmp_path: Path
) -> None:
    found = fused_operators(write_onnx(small_model(name, quant), tmp_path / "q.onnx"))
    # four linear layers and the logits of each block; patch merging and the head
    assert found["MatMulIntegerToFloat"] == 5 * blocks + others
    assert found["QLinearMatMul"] == blocks  # the softmax's, whose results are quantized
    # the embedding alone, whose pixels are not quantized; MatMulNBits would round them
    assert sum(found[op] for op in FLOAT_PRODUCTS) == found["MatMul"] == 1
    assert not found["MatMulNBits"]


@pytest.mark.parametrize(
    ("name", "quant", "integers", "floats"),
    [
        # the stem, the shortcuts and the convolutions before sums give float, and stay float
        ("small_resnet", DEPLOY, 8, 7),
        ("small_mobilenet", DEPLOY, 13, 3),
        ("small_resnet", SUMS, 15, 0),
        ("small_mobilenet", SUMS, 16, 0),
        ("small_cifar_resnet", SUMS, 19, 0),
    ],
)
def test_convolutions_before_quantizers(
    name: str, quant: QuantConfig, integers: int, floats: int, tmp_path: Path
) -> None:
    found = fused_operators(write_onnx(small_model(name, quant), tmp_path / "q.onnx"))
    assert found["QLinearConv"] == integers
    assert found["Conv"] + found["FusedConv"] == floats
    assert found["MatMulIntegerToFloat"] == 1  # the classifier
    assert not found["Gemm"] + found["MatMul"]
