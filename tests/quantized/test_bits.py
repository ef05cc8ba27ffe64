"""Bits are numbers: one program serves every mix of them, and they can be mapped over."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.timing import count_compilations
from evolq_jax.calibration.calibrate import calibrate
from evolq_jax.calibration.links.ranges import weight_qparams
from evolq_jax.network.network import Network
from evolq_jax.network.run import at
from evolq_jax.objective.objective import Teacher, make_objective
from evolq_jax.quant.qparams import QParams, blank_qparams, with_bits
from evolq_jax.quant.scheme import QuantConfig, Resolved, resolve
from evolq_jax.quant.spec import scope
from evolq_jax.quantized.network import QuantizedNetwork
from evolq_jax.search import programs
from evolq_jax.search.population import Context
from evolq_jax.search.problem import Runner
from evolq_jax.trees import flatten
from evolq_jax.typing import Array
from tests.search.setting import score
from tests.tiny import PREPROCESSING, Tiny

# A site of every kind of quantizer, searched ends, and factors by channel.
QUANT = QuantConfig(
    "matmul",
    activation_observer="pow2",
    weight_observer="omse_ends",
    softmax_quantizer="log2",
    gelu_quantizer="twin",
)
QKV = "blocks/attn/qkv/weight"


def resolved(tiny: Tiny) -> Resolved:
    return resolve(QUANT, tiny.sites)


def allocation(tiny: Tiny, seed: int) -> dict[str, np.ndarray]:
    """Random bits by site and block."""
    rng = np.random.default_rng(seed)
    return {site: rng.integers(2, 9, tiny.sites[site].depth or 1) for site, _ in resolved(tiny).specs}


def one_allocation(tiny: Tiny, bits: dict[str, np.ndarray]) -> tuple[QParams, Array, Array]:
    """Ranges for these bits, the fitness of a population at a block, and the network's logits."""
    specs = resolved(tiny).specs
    start = with_bits(blank_qparams(specs, 8, tiny.sites), bits)
    given = tiny.parts, specs, tiny.params, [tiny.images]
    qparams = calibrate(*given, sites=tiny.sites, qparams=start, chunk=12).qparams
    network = programs.quantize(specs, tiny.params, qparams)
    x, teacher = 0.1 * jnp.ones((12, 5, 32)), Teacher(jnp.ones((12, 10)))
    candidates = programs.jitter((), at(scope(qparams, "blocks"), 1), jax.random.key(0), 2)
    runner = Runner(tiny.parts, specs, image_chunk=6)
    fitness = score(runner, make_objective("mse"), Context(network, jnp.int32(1), x, teacher), candidates)
    return qparams, fitness, quantized_network(tiny, qparams)(tiny.pixels)


def quantized_network(tiny: Tiny, qparams: QParams) -> QuantizedNetwork:
    network = Network(tiny.parts, tiny.params, PREPROCESSING, "tiny", tiny.config)
    return QuantizedNetwork(network, tiny.params, qparams, resolved(tiny).specs)


def test_ten_allocations_compile_what_one_does(tiny: Tiny) -> None:
    jax.clear_caches()
    with count_compilations() as first:
        before = one_allocation(tiny, allocation(tiny, 0))
    assert first.seconds
    with count_compilations() as others:
        found = [one_allocation(tiny, allocation(tiny, seed)) for seed in range(1, 10)]
    assert not others.seconds
    for seed, (qparams, fitness, logits) in enumerate(found, 1):
        for site, widths in allocation(tiny, seed).items():
            np.testing.assert_array_equal(qparams[site].bits.ravel(), widths)
        assert np.isfinite(fitness).all()
        assert not np.array_equal(logits, before[2])


def test_ranges_fit_the_bits_of_every_block(tiny: Tiny) -> None:
    """A block's scales at its own bits are those that all blocks have at these bits."""
    mixed = one_allocation(tiny, {QKV: np.array([2, 5, 8])})[0]
    for block, bits in enumerate((2, 5, 8)):
        alike = one_allocation(tiny, {QKV: np.array([bits] * 3)})[0]
        jax.tree.map(np.testing.assert_array_equal, at(mixed[QKV], block), at(alike[QKV], block))
    widths = np.asarray(mixed[QKV].scale).mean((1, 2))
    assert widths[0] > 4 * widths[1] > 16 * widths[2]


def test_allocations_are_one_vmap(tiny: Tiny) -> None:
    qparams = one_allocation(tiny, allocation(tiny, 0))[0]
    quantized, site = quantized_network(tiny, qparams), "blocks/mlp/gelu"
    spec, weight = dict(quantized.specs)[QKV], flatten(tiny.params)[QKV]

    def logits(widths: dict[str, Array]) -> Array:
        """With weight ranges found for these bits."""
        given = with_bits(qparams, widths)
        given[QKV] = jax.vmap(partial(weight_qparams, spec))(given[QKV].bits, weight)
        return quantized.apply(tiny.params, given, tiny.pixels)

    rng = np.random.default_rng(1)
    many = {name: jnp.asarray(rng.integers(2, 9, (4, 3)), jnp.float32) for name in (QKV, site)}
    mapped, alone = jax.jit(jax.vmap(logits))(many), jax.jit(logits)
    loop = jnp.stack([alone({name: widths[i] for name, widths in many.items()}) for i in range(4)])
    # Another program flips a few roundings; another allocation is far away.
    distances = jnp.linalg.norm((mapped[:, None] - loop[None]).reshape(4, 4, -1), axis=-1)
    others = distances + jnp.where(jnp.eye(4, dtype=bool), jnp.inf, 0.0)
    assert bool((jnp.diag(distances) < 0.2 * others.min(0)).all()), distances
