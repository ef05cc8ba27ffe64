import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evolq_jax.errors import UserError
from evolq_jax.network.network import CHUNK
from evolq_jax.network.reading import Reading
from evolq_jax.network.run import forward
from evolq_jax.quant.sites import fake_quant_weights, quant_sites
from evolq_jax.quantized.network import QuantizedNetwork
from tests.tiny import NUM_CLASSES, Tiny

SITE = "blocks/attn/qkv/weight"


def by_hand(quantized: QuantizedNetwork, images: jax.Array) -> jax.Array:
    weights = fake_quant_weights(quantized.specs, quantized.params, quantized.qparams)
    parts, make_site = quantized.network.parts, quant_sites(quantized.specs)
    return forward(parts, Reading(make_site, weights, quantized.qparams), images)


def test_pixels_go_in_and_logits_come_out(quantized: QuantizedNetwork, tiny: Tiny) -> None:
    logits = quantized(tiny.pixels)
    assert logits.shape == (12, NUM_CLASSES)
    np.testing.assert_allclose(logits, by_hand(quantized, tiny.images), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(quantized(tiny.images), logits, rtol=1e-4, atol=1e-4)
    assert float(jnp.abs(logits - quantized.network(tiny.pixels)).max()) > 1e-3


def test_any_number_of_images_runs_in_chunks(quantized: QuantizedNetwork, tiny: Tiny) -> None:
    many = jnp.tile(tiny.pixels, (6, 1, 1, 1))[: CHUNK + 7]
    logits = quantized(many)
    assert logits.shape == (CHUNK + 7, NUM_CLASSES)
    np.testing.assert_allclose(logits[:12], quantized(tiny.pixels), rtol=1e-4, atol=1e-4)


def test_a_population_of_scales_is_one_vmap(quantized: QuantizedNetwork, tiny: Tiny) -> None:
    factors = jnp.asarray([1.0, 1.5, 3.0])
    population = jax.vmap(lambda f: jax.tree.map(lambda leaf: f * leaf, quantized.scales))(factors)

    def logits(scales: dict[str, jax.Array]) -> jax.Array:
        return quantized.apply(quantized.params, scales, tiny.pixels)

    found = jax.jit(jax.vmap(logits))(population)
    alone = jnp.stack(
        [
            quantized.with_scales({site: factor * scale for site, scale in quantized.scales.items()})(
                tiny.pixels
            )
            for factor in factors
        ]
    )
    # Another program flips a few roundings; another member of the population is far away.
    distances = jnp.linalg.norm((found[:, None] - alone[None]).reshape(3, 3, -1), axis=-1)
    others = distances + jnp.where(jnp.eye(3, dtype=bool), jnp.inf, 0.0)
    assert bool((jnp.diag(distances) < 0.2 * others.min(0)).all()), distances


def test_gradients_pass_through_rounding(quantized: QuantizedNetwork, tiny: Tiny) -> None:
    wanted = quantized.network(tiny.pixels)

    def loss(scales: dict[str, jax.Array]) -> jax.Array:
        return jnp.mean((quantized.apply(quantized.params, scales, tiny.pixels) - wanted) ** 2)

    value, gradients = jax.jit(jax.value_and_grad(loss))(quantized.scales)
    assert set(gradients) == set(quantized.scales)
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in gradients.values())
    assert float(jnp.abs(gradients[SITE]).max()) > 0
    step = {site: scale * (1 - 1e-3 * jnp.sign(gradients[site])) for site, scale in quantized.scales.items()}
    assert float(loss(step)) < float(value)


def test_one_site_alone_can_be_given(quantized: QuantizedNetwork, tiny: Tiny) -> None:
    doubled = {SITE: 2 * quantized.scales[SITE]}
    changed = quantized.with_scales(doubled)
    np.testing.assert_array_equal(changed.scales[SITE], doubled[SITE])
    assert jax.tree.all(
        jax.tree.map(
            jnp.array_equal,
            {site: scale for site, scale in changed.scales.items() if site != SITE},
            {site: scale for site, scale in quantized.scales.items() if site != SITE},
        )
    )
    whole = quantized.with_scales({SITE: changed.qparams[SITE]})
    np.testing.assert_array_equal(whole(tiny.pixels), changed(tiny.pixels))


def test_an_unknown_site_is_named(quantized: QuantizedNetwork) -> None:
    with pytest.raises(UserError, match="no quantized site is called 'blocks/attn/qkw/weight'; did you mean"):
        quantized.with_scales({"blocks/attn/qkw/weight": jnp.ones(1)})


def test_products_have_the_precision_that_the_network_says(quantized: QuantizedNetwork, tiny: Tiny) -> None:
    """Outside of every verb, where JAX's default on a GPU would be TF32."""
    with jax.default_matmul_precision("default"):
        program = jax.jit(quantized.apply).lower(quantized.params, {}, tiny.pixels).as_text()
    products = [line for line in program.splitlines() if "stablehlo.dot_general" in line]
    assert len(products) > 4
    assert all("precision = [HIGHEST, HIGHEST]" in line for line in products), products[0]
