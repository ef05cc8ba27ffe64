import numpy as np

from evolq_jax.network.network import Network
from evolq_jax.quant.scheme import QuantConfig
from evolq_jax.quantized.calibrate import calibrate
from evolq_jax.quantized.network import QuantizedNetwork
from evolq_jax.quantized.size import size_of
from evolq_jax.trees import flatten
from tests.tiny import Tiny


def counted(quantized: QuantizedNetwork, bits: int, edge_bits: int) -> int:
    """Bytes, leaf by leaf: codes, numbers that stay in float, scales, and zero points of a byte."""
    specs, total = dict(quantized.specs), 0.0
    for name, leaf in flatten(quantized.params).items():
        edge = not name.startswith("blocks/")
        total += leaf.size * ((edge_bits if edge else bits) / 8 if name in specs else 4)
    for site in specs:
        total += quantized.qparams[site].scale.size * (4 if specs[site].signed else 5)
    return round(total)


def test_a_weight_counts_its_bits_and_everything_else_four_bytes(
    network: Network, quantized: QuantizedNetwork
) -> None:
    size = size_of(quantized)
    assert size.float32 == 4 * sum(leaf.size for leaf in flatten(network.params).values())
    assert size.quantized == counted(quantized, 4, 8)
    assert size.ratio == size.float32 / size.quantized


def test_blocks_count_their_own_bits(network: Network, tiny: Tiny) -> None:
    site = "blocks/mlp/fc1/weight"
    config, chain = QuantConfig("matmul", weight_bits=4), ("ranges",)
    alike = calibrate(network, tiny.pixels, config, chain=chain)
    depth, *shape = flatten(network.params)[site].shape
    mixed = calibrate(network, tiny.pixels, config, chain=chain, bits={site: [8] + [4] * (depth - 1)})
    assert size_of(mixed).quantized - size_of(alike).quantized == np.prod(shape) * 4 // 8


def test_what_the_chain_adds_counts(network: Network, tiny: Tiny) -> None:
    config = QuantConfig("matmul", weight_bits=4)
    alike = calibrate(network, tiny.pixels, config, chain=("ranges",))
    added = calibrate(network, tiny.pixels, config, chain=("ranges", "block_linear"))
    new = set(flatten(added.params)) - set(flatten(alike.params))
    assert new
    more = 4 * sum(flatten(added.params)[name].size for name in new)
    assert size_of(added).quantized - size_of(alike).quantized == more
    assert size_of(added).float32 == size_of(alike).float32
