import numpy as np
import pytest

from evolq_jax.integers.build import integer_model
from evolq_jax.integers.model import IntegerModel
from evolq_jax.network.network import Network
from evolq_jax.quant.scheme import QuantConfig, Rule
from evolq_jax.quantized.calibrate import calibrate
from evolq_jax.quantized.network import QuantizedNetwork
from tests.tiny import PREPROCESSING, Tiny


@pytest.fixture(scope="session")
def network(tiny: Tiny) -> Network:
    return Network(tiny.parts, tiny.params, PREPROCESSING, "tiny", tiny.config)


@pytest.fixture(scope="session")
def deployed(network: Network, tiny: Tiny) -> QuantizedNetwork:
    """The tiny ViT with four-bit weights, as ONNX runtimes execute it."""
    return calibrate(network, tiny.pixels, QuantConfig("deploy"), chain=("ranges", "ridge", "gptq"))


@pytest.fixture(scope="session")
def mixed(network: Network, tiny: Tiny) -> QuantizedNetwork:
    """Affine weights of other bits in every layer and block, and a quantizer of each kind."""
    rules = (
        Rule("*/mlp/fc1/weight", bits=3),
        Rule("*/attn/softmax", bits=4, quantizer="log"),
        Rule("*/mlp/gelu", bits=5, quantizer="shifted_log"),
        Rule("*/norm2", signed=True),
    )
    bits = {"blocks/attn/qkv/weight": np.array([2, 5, 8])}
    quant = QuantConfig("matmul", rules=rules)
    return calibrate(network, tiny.pixels, quant, chain=("ranges",), bits=bits)


@pytest.fixture(scope="session")
def model(deployed: QuantizedNetwork) -> IntegerModel:
    return integer_model(deployed)
