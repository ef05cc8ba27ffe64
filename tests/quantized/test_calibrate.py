from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evolq_jax.calibration.chain import LINKS
from evolq_jax.errors import UserError
from evolq_jax.network.network import Network
from evolq_jax.objective.logits import kl
from evolq_jax.quant.scheme import QuantConfig
from evolq_jax.quantized.calibrate import calibrate
from evolq_jax.quantized.network import QuantizedNetwork
from evolq_jax.typing import Images
from tests.tiny import Tiny

W3 = QuantConfig("matmul", weight_bits=3)


def loss(quantized: QuantizedNetwork, tiny: Tiny) -> float:
    return float(kl(quantized(tiny.pixels), quantized.network(tiny.pixels)))


def test_ranges_change_no_parameter(quantized: QuantizedNetwork, network: Network) -> None:
    assert quantized.params is network.params
    assert set(quantized.qparams) == {site for site, _ in quantized.specs}


def test_corrected_weights_lose_less(network: Network, tiny: Tiny) -> None:
    plain = calibrate(network, tiny.pixels, W3, chain=("ranges",))
    corrected = calibrate(network, tiny.pixels, W3, chain=("ranges", "ridge", "gptq", "bias"))
    assert loss(corrected, tiny) < 0.7 * loss(plain, tiny)
    codes = corrected.params["blocks"]["attn"]["qkv"]["weight"]
    np.testing.assert_array_equal(codes, jnp.round(codes))


def test_links_are_names_or_objects(network: Network, tiny: Tiny) -> None:
    by_name = calibrate(network, tiny.pixels, W3, chain=("ranges", "bias"))
    by_object = calibrate(network, tiny.pixels, W3, chain=("ranges", replace(LINKS["bias"])))
    assert jax.tree.all(jax.tree.map(jnp.array_equal, by_name.params, by_object.params))


def test_loaded_images_are_taken_as_pixels_are(network: Network, tiny: Tiny) -> None:
    images = Images(np.asarray(tiny.pixels), None, tuple(map(str, range(12))))
    one, other = calibrate(network, images, W3), calibrate(network, tiny.pixels, W3)
    assert jax.tree.all(jax.tree.map(jnp.array_equal, one.qparams, other.qparams))


def test_an_unknown_link_is_named(network: Network, tiny: Tiny) -> None:
    with pytest.raises(UserError, match="unknown initialiser 'rigde'; did you mean 'ridge'"):
        calibrate(network, tiny.pixels, W3, chain=("ranges", "rigde"))


def test_bits_are_numbers_by_site_and_block(network: Network, tiny: Tiny) -> None:
    site = "blocks/attn/qkv/weight"
    mixed = calibrate(network, tiny.pixels, W3, chain=("ranges",), bits={site: np.asarray([2, 8, 4])})
    np.testing.assert_array_equal(mixed.qparams[site].bits.reshape(-1), [2, 8, 4])
    eight = calibrate(network, tiny.pixels, replace(W3, weight_bits=8), chain=("ranges",))
    np.testing.assert_array_equal(mixed.scales[site][1], eight.scales[site][1])
    assert loss(mixed, tiny) != loss(calibrate(network, tiny.pixels, W3, chain=("ranges",)), tiny)
