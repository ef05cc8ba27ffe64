"""Eight bits at every site, integer LayerNorm included, change little in any family."""

import jax
import jax.numpy as jnp
import pytest

from evolq_jax.network.reading import Reading
from evolq_jax.network.run import forward
from evolq_jax.quant.qparams import QParams
from evolq_jax.quant.scheme import QuantConfig
from evolq_jax.quant.sites import SiteFactory, fake_quant_weights, float_sites, quant_sites
from evolq_jax.typing import Array, Params
from tests.families import ENTRIES, calibrate_small


@pytest.mark.parametrize("name", ENTRIES)
def test_eight_bits_everywhere_change_little(name: str) -> None:
    config = QuantConfig("fully_quantized", weight_bits=8, weight_observer="minmax", integer_layer_norm=True)
    small, specs, qparams = calibrate_small(name, config)

    def logits(make_site: SiteFactory, params: Params, qparams: QParams) -> Array:
        return jax.jit(lambda p, s, x: forward(small.parts, Reading(make_site, p, s), x))(
            params, qparams, small.images
        )

    exact = logits(float_sites, small.params, {})
    quantized = logits(quant_sites(specs), fake_quant_weights(specs, small.params, qparams), qparams)
    relative = float(jnp.linalg.norm(quantized - exact) / jnp.linalg.norm(exact))
    assert 1e-3 < relative < (0.2 if name == "small_levit" else 0.05)
