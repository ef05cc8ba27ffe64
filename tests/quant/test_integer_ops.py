import jax.numpy as jnp
import numpy as np
import pytest

from evolq_jax.quant.integer_ops import integer_layer_norm, integer_softmax
from evolq_jax.quant.quantizers.log2 import LOG2
from evolq_jax.quant.spec import QuantSpec
from tests.numbers import numbers
from tests.quant import reference

WIDTH, TOKENS = 48, 20
SCALE_OUT = 0.04


SPEC = QuantSpec(quantizer=LOG2, integer_op=True)


def values(logits: jnp.ndarray, scale: float, bits: int) -> jnp.ndarray:
    """What a log2 quantizer makes of the exponents."""
    return LOG2.decode(SPEC, numbers(np.ones(1), 0, bits), integer_softmax(logits, jnp.float32(scale)))


def norm_inputs() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """A token stream on its (power-of-two factor) grid; a gain that is zero, and negative ones."""
    rng = np.random.default_rng(3)
    scale_in = (0.02 * rng.choice([1, 2, 4, 8], WIDTH)).astype(np.float32)
    x = np.round(2 * rng.standard_normal((TOKENS, WIDTH)) / scale_in) * scale_in + 30 * scale_in
    weight = rng.standard_normal(WIDTH)
    weight[0] = 0.0
    return x.astype(np.float32), weight.astype(np.float32), rng.standard_normal(WIDTH), scale_in


def some_logits(seed: int, scale: float) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (np.round(2.5 * rng.standard_normal((30, 25)) / scale) * scale).astype(np.float32)


def test_integer_layer_norm_is_the_formula() -> None:
    x, weight, bias, scale_in = norm_inputs()
    norm = {"weight": weight, "bias": jnp.asarray(bias)}
    got = np.asarray(integer_layer_norm(norm, x, scale_in, jnp.float32(SCALE_OUT)))  # type: ignore[arg-type]
    want = np.stack([reference.integer_layer_norm(row, weight, bias, scale_in, SCALE_OUT) for row in x])
    steps = np.abs(got - want) / SCALE_OUT
    # A multiplier or a half may flip between float32 and double precision, and moves one value by a step.
    assert np.mean(steps < 0.1) > 0.995
    assert steps.max() < 1.5


def test_integer_layer_norm_is_close_to_layer_norm() -> None:
    x, weight, bias, scale_in = norm_inputs()
    norm = {"weight": weight, "bias": jnp.asarray(bias)}
    got = np.asarray(integer_layer_norm(norm, x, scale_in, jnp.float32(SCALE_OUT)))  # type: ignore[arg-type]
    want = reference.layer_norm(x, weight, bias, 0.0)
    # half a step of rounding, and a multiplier of 8 bits (cut off) applied to the uncentred input
    gain = np.abs(weight / x.std(-1, keepdims=True))
    assert np.all(np.abs(got - want) <= 0.51 * SCALE_OUT + gain * np.abs(x) / 128)
    np.testing.assert_allclose(got / SCALE_OUT, np.round(got / SCALE_OUT), atol=1e-3)  # on the output's grid


@pytest.mark.parametrize("bits", [3, 4, 8])
@pytest.mark.parametrize("scale", [0.02, 0.06])
def test_integer_softmax_is_the_formula(bits: int, scale: float) -> None:
    logits = some_logits(bits, scale)
    got = np.asarray(values(jnp.asarray(logits), scale, bits))
    want = np.stack([reference.integer_softmax(row, float(np.float32(scale)), bits) for row in logits])
    # q = x / scale is not exactly an integer in float32 either, so that a floor may flip now and then
    assert np.mean(got == want) > 0.99


def test_integer_softmax_is_softmax_within_a_factor_of_two() -> None:
    logits = some_logits(0, 0.02)
    got = np.asarray(values(jnp.asarray(logits), 0.02, 8))
    want = reference.softmax(logits)
    assert np.all(np.abs(np.log2(got / want)) < 1)
    log2 = numbers(np.ones(1), 0, 8)
    nearest = np.asarray(LOG2.fake_quant(SPEC, log2, jnp.asarray(want, jnp.float32)))
    assert np.mean(nearest == got) > 0.8  # and mostly the power that the log2 quantizer takes


def test_integer_softmax_survives_far_logits() -> None:
    logits = jnp.array([[0.0, -1.0, -1000.0], [50.0, 50.0, 50.0]])
    got = np.asarray(values(logits, 0.05, 4))
    assert got[0, 2] == 0
    assert got[1].tolist() == [0.25, 0.25, 0.25]  # thirds, and a quotient of 3 rounds up to 4
