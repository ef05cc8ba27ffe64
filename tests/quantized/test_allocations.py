"""Bits are numbers: one program serves every mix of them, by site and by block."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.timing import count_compilations
from evolq_jax.network.network import Network
from evolq_jax.objective.logits import kl
from evolq_jax.quant.qparams import QParams, with_bits
from evolq_jax.quant.scheme import QuantConfig
from evolq_jax.quantized.calibrate import calibrate
from evolq_jax.quantized.network import QuantizedNetwork
from tests.tiny import Tiny

QUANT = QuantConfig("matmul")
COUNT = 10


def random_bits(quantized: QuantizedNetwork, seed: int) -> dict[str, np.ndarray]:
    """2 to 8 bits for every site, other ones for each block."""
    draw = np.random.default_rng(seed)
    return {
        site: draw.integers(2, 9, numbers.bits.shape[0] if site.startswith("blocks/") else 1)
        for site, numbers in quantized.qparams.items()
    }


def test_ten_allocations_compile_what_one_does(
    network: Network, quantized: QuantizedNetwork, tiny: Tiny
) -> None:
    losses: list[float] = []

    def allocate(seed: int) -> None:
        found = calibrate(network, tiny.pixels, QUANT, bits=random_bits(quantized, seed))
        losses.append(float(kl(found(tiny.pixels), network(tiny.pixels))))

    allocate(0)
    with count_compilations() as more:
        for seed in range(1, COUNT):
            allocate(seed)
    assert more.seconds == []
    assert len(set(losses)) == COUNT


@pytest.mark.slow
def test_allocations_are_a_population(quantized: QuantizedNetwork, tiny: Tiny) -> None:
    wanted = quantized.network(tiny.pixels)

    def loss(qparams: QParams) -> jax.Array:
        return kl(quantized.apply(quantized.params, qparams, tiny.pixels), wanted)

    drawn = [with_bits(quantized.qparams, random_bits(quantized, seed)) for seed in range(4)]
    population = jax.tree.map(lambda *leaves: jnp.stack(leaves), *drawn)
    found = jax.jit(jax.vmap(loss))(population)
    alone = jnp.stack([loss(qparams) for qparams in drawn])
    np.testing.assert_allclose(found, alone, rtol=0.05)
    assert float(jnp.ptp(alone)) > 0.2 * float(alone.mean())
