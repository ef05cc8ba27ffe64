import pytest

from evolq_jax.network.network import Network
from evolq_jax.quant.scheme import QuantConfig
from evolq_jax.quantized.calibrate import calibrate
from evolq_jax.quantized.network import QuantizedNetwork
from tests.tiny import PREPROCESSING, Tiny


@pytest.fixture(scope="session")
def network(tiny: Tiny) -> Network:
    return Network(tiny.parts, tiny.params, PREPROCESSING, "tiny", tiny.config)


@pytest.fixture(scope="session")
def quantized(network: Network, tiny: Tiny) -> QuantizedNetwork:
    """The tiny ViT at four bits, by ranges."""
    return calibrate(network, tiny.pixels, QuantConfig("matmul", weight_bits=4), chain=("ranges",))
