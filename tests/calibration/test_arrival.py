"""Both networks run through a block piece by piece."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evolq_jax.calibration import arrival
from evolq_jax.calibration.arrival import Stop, Weighing, arrive, settled
from evolq_jax.calibration.calibrate import calibrate
from evolq_jax.calibration.layer import Moments
from evolq_jax.calibration.link import State
from evolq_jax.calibration.streams import Block, Inside, Place, Streams, at_input, leave, one_block
from evolq_jax.network.parts import Linear
from evolq_jax.quant.qparams import blank_qparams
from evolq_jax.quant.scheme import QuantConfig, resolve
from tests.tiny import Tiny


@pytest.fixture(scope="module")
def place(tiny: Tiny) -> Place:
    return Place(tiny.parts, resolve(QuantConfig(weight_bits=3, activation_bits=4), tiny.sites).specs, 0)


@pytest.fixture(scope="module")
def block(tiny: Tiny, place: Place) -> Block:
    specs, bits = resolve(QuantConfig(weight_bits=3, activation_bits=4), tiny.sites)
    given, start = (tiny.parts, specs, tiny.params, [tiny.images]), blank_qparams(specs, bits, tiny.sites)
    qparams = calibrate(*given, sites=tiny.sites, qparams=start, chain=("ranges",)).qparams
    return one_block(place, State(tiny.params, tiny.params, qparams), jnp.int32(1))


@pytest.fixture(scope="module")
def start() -> Inside:
    """Two streams at a block's input: three chunks of two images."""
    exact = jax.random.normal(jax.random.key(0), (3, 2, 5, 32))
    return at_input(Streams(exact, exact + 0.1 * jax.random.normal(jax.random.key(1), exact.shape)))


WEIGHING = Weighing(None, jnp.int32(1), 0.9)


def pieces(place: Place, block: Block, known: Inside) -> tuple[dict[str, Moments], Inside]:
    """Moments at every layer, and what is known inside the block at the end."""
    found: dict[str, Moments] = {}
    for linear in place.segment.linears:
        found[linear.name], known = arrive(Stop(place, linear, relative=True), block, known, WEIGHING)
    return found, known


def test_pieces_of_a_block_are_the_block(
    place: Place, block: Block, start: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, known = pieces(place, block, start)
    kept = {"", *(linear.source for linear in place.segment.linears), "residual_in", "residual_mid"}
    assert set(known.floating) == set(known.quantized) == kept
    # With no room everything is computed again from the block's input.
    monkeypatch.setattr(arrival, "KEPT_BYTES", 0)
    jax.clear_caches()
    again, only_input = pieces(place, block, start)
    jax.clear_caches()
    assert set(only_input.floating) == {""}
    for name, moments in again.items():
        for one, other in zip(found[name], moments, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4 * float(jnp.abs(one).max()))
    for one, other in zip(leave(place, block, known), leave(place, block, start), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


def test_values_that_a_later_layer_can_change_are_not_kept() -> None:
    found = {"residual_in": jnp.zeros(1), "norm1": jnp.ones(1), "shortcut": jnp.ones(1)}
    found = settled(Linear("conv", "norm1", "shortcut"), {"residual_in": jnp.zeros(1)}, found)
    assert set(found) == {"norm1"}
