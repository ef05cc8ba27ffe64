import jax
import jax.numpy as jnp
import numpy as np

from evolq_jax.objective.logits import kl
from evolq_jax.quantized.network import QuantizedNetwork
from evolq_jax.quantized.search import evolve, fitted
from evolq_jax.search.config import SearchConfig
from evolq_jax.search.state import Generation
from tests.tiny import Tiny

SETTINGS = SearchConfig(passes=1, generations=2, population_size=4, batch_size=6, holdout=0.0)


def test_a_search_lowers_the_fitness(quantized: QuantizedNetwork, tiny: Tiny) -> None:
    told: list[Generation] = []
    key = jax.random.key(0)
    found = evolve(quantized, tiny.pixels, SETTINGS, key=key, on_generation=told.append)
    wanted = quantized.network(tiny.pixels)
    before, after = (float(kl(network(tiny.pixels), wanted)) for network in (quantized, found))
    assert after < before
    assert len(told) == 3 * 2  # blocks times generations
    assert found.params is quantized.params
    again = evolve(quantized, tiny.pixels, SETTINGS, key=key)
    assert jax.tree.all(jax.tree.map(jnp.array_equal, found.qparams, again.qparams))


def test_batches_divide_the_images() -> None:
    assert fitted(SearchConfig(batch_size=50), 128).batch_size == 32
    assert fitted(SearchConfig(batch_size=50), 100).batch_size == 50
    np.testing.assert_equal(fitted(SearchConfig(batch_size=50), 7).batch_size, 7)
