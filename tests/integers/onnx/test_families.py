"""Every family as ONNX: valid, for any number of images, and what the integer model computes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from evolq_jax.integers.onnx.read import check_onnx
from evolq_jax.integers.onnx.session import OnnxNetwork, open_onnx
from evolq_jax.integers.onnx.write import write_float_onnx, write_onnx
from evolq_jax.quant.scheme import QuantConfig
from tests.families import ENTRIES, TRANSFORMERS, make_small
from tests.integers.onnx.floor import distance, floor
from tests.integers.onnx.small import network_of, small_model

onnx = pytest.importorskip("onnx", reason="onnx is not installed: pip install 'evolq_jax[onnx]'")
onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: as onnx")


def as_written(opened: OnnxNetwork, path: Path) -> OnnxNetwork:
    """The file operator by operator: onnxruntime fuses nothing."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return replace(opened, session=onnxruntime.InferenceSession(path, options))


@pytest.mark.parametrize("name", ENTRIES)
def test_a_float_network_is_the_same_function(name: str, tmp_path: Path) -> None:
    network, images = network_of(name), make_small(name).images
    path = write_float_onnx(network, tmp_path / "float.onnx")
    onnx.checker.check_model(onnx.load(path), full_check=True)
    wanted = np.asarray(network(images))
    np.testing.assert_allclose(open_onnx(path)(images), wanted, atol=1e-5 * wanted.std())


@pytest.mark.parametrize("name", ENTRIES)
def test_a_quantized_network_is_the_integer_model(name: str, tmp_path: Path) -> None:
    model, images = small_model(name, QuantConfig("deploy")), make_small(name).images
    path = write_onnx(model, tmp_path / "q.onnx")
    onnx.checker.check_model(onnx.load(path), full_check=True)
    check_onnx(path, model)
    fused = open_onnx(path)
    logits = fused(images)
    np.testing.assert_allclose(fused(images[:3]), logits[:3], atol=1e-6)
    wanted, nearest = floor(model, images)
    exact, found = distance(as_written(fused, path)(images), wanted), distance(logits, wanted)
    assert exact.error < max(2 * nearest.error, 1e-6)
    assert min(found.agreement, exact.agreement) >= nearest.agreement - 1 / len(images)
    # QLinearConv rounds biases to steps of its products
    assert found.error < (
        max(2 * nearest.error, 1e-6) if name in TRANSFORMERS and name != "small_levit" else 0.04
    )
