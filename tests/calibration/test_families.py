"""Eight bits at every site, integer LayerNorm included, change little in any family."""

import jax
import jax.numpy as jnp
import pytest

from evolq_jax.network.reading import float_reading, quantized_reading
from evolq_jax.network.run import forward
from evolq_jax.quant.qparams import QParams
from evolq_jax.quant.scheme import QuantConfig
from evolq_jax.quant.sites import fake_quant_weights
from evolq_jax.typing import Array, Params
from tests.families import ENTRIES, calibrate_small


@pytest.mark.parametrize("name", ENTRIES)
def test_eight_bits_everywhere_change_little(name: str) -> None:
    config = QuantConfig("fully_quantized", weight_bits=8, weight_observer="minmax", integer_layer_norm=True)
    small, specs, qparams = calibrate_small(name, config)

    @jax.jit
    def logits(params: Params, qparams: QParams, images: Array) -> tuple[Array, Array]:
        weights = fake_quant_weights(specs, params, qparams)
        quantized = forward(small.parts, quantized_reading(specs, weights, qparams), images)
        return quantized, forward(small.parts, float_reading(params), images)

    quantized, exact = logits(small.params, qparams, small.images)
    relative = float(jnp.linalg.norm(quantized - exact) / jnp.linalg.norm(exact))
    assert 1e-3 < relative < (0.2 if name == "small_levit" else 0.05)
