import pytest

from evolq_jax.calibration.calibrate import calibrate
from evolq_jax.network.network import Network
from evolq_jax.quant.spec import QuantConfig, resolve
from evolq_jax.quantized.network import QuantizedNetwork
from tests.tiny import PREPROCESSING, Tiny


@pytest.fixture(scope="session")
def quantized(tiny: Tiny) -> QuantizedNetwork:
    """The tiny ViT at four bits, by ranges."""
    network = Network(tiny.parts, tiny.params, PREPROCESSING, "tiny", tiny.config)
    specs = resolve(QuantConfig("matmul", weight_bits=4), network.sites)
    given = network.parts, specs, network.params, [tiny.images]
    params, _, qparams = calibrate(*given, sites=network.sites, chunk=12)
    return QuantizedNetwork(network, params, qparams, specs)
