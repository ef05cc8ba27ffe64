import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evolq_jax.quant.channel_statistics import match_channel_statistics
from evolq_jax.quant.quantizers.uniform import UNIFORM, int_range
from evolq_jax.quant.sites import fake_quant_weight
from evolq_jax.quant.spec import QuantSpec
from tests.numbers import numbers
from tests.quant import reference


def tensor(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def some_qparams(spec: QuantSpec, bits: int, channels: int) -> tuple[np.ndarray, np.ndarray]:
    """Scales too small for the whole range, so that values are clipped on both sides."""
    rng = np.random.default_rng(7)
    low, high = reference.int_range(bits, spec.signed)
    shape = (1, 1, channels if spec.per_channel else 1)
    scale = (rng.uniform(2.0, 4.0, shape) / (high - low)).astype(np.float32)
    zero = np.zeros(shape) if spec.signed else rng.integers(low, high + 1, shape)
    return scale, zero.astype(np.float32)


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("bits", range(2, 9))
def test_fake_quant_is_the_formula(bits: int, signed: bool, per_channel: bool) -> None:
    spec = QuantSpec(signed=signed, per_channel=per_channel)
    x = tensor(bits, 4, 9, 5)
    scale, zero = some_qparams(spec, bits, 5)
    got = np.asarray(UNIFORM.fake_quant(spec, numbers(scale, zero, bits), jnp.asarray(x)))
    want = reference.fake_quant(x, scale, zero, bits, signed)
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=0)
    integers = np.round(want / scale + zero)
    assert (integers.min(), integers.max()) == reference.int_range(bits, signed)  # both ends are reached


@pytest.mark.parametrize("signed", [False, True])
def test_integers_span_the_type(signed: bool) -> None:
    """Exactly, of all bits at once."""
    bits = np.arange(2, 9)
    found = jax.jit(lambda bits: int_range(signed, bits))(jnp.asarray(bits, jnp.float32))
    want = [reference.int_range(int(width), signed) for width in bits]
    np.testing.assert_array_equal(np.stack(found, 1), want)


def test_ties_go_to_even_and_quantizing_twice_changes_nothing() -> None:
    spec, site_qparams = QuantSpec(), numbers(jnp.ones(1), 3, 4)
    q = UNIFORM.encode(spec, site_qparams, jnp.array([-9.0, -0.5, 0.5, 1.5, 2.5, 99.0]))
    assert q.tolist() == [0, 2, 4, 4, 6, 15]
    once = UNIFORM.decode(spec, site_qparams, q)
    assert UNIFORM.fake_quant(spec, site_qparams, once).tolist() == once.tolist()


@pytest.mark.parametrize(("shape", "axes"), [((24, 6), (0,)), ((3, 3, 4, 6), (0, 1, 2)), ((2, 24, 6), (1,))])
def test_bias_correction_restores_mean_and_deviation(shape: tuple[int, ...], axes: tuple[int, ...]) -> None:
    weight = tensor(1, *shape)
    got = np.asarray(match_channel_statistics(jnp.asarray(weight), jnp.round(weight), axes))
    np.testing.assert_allclose(got.mean(axes), weight.mean(axes), atol=1e-6)
    np.testing.assert_allclose(got.std(axes, ddof=1), weight.std(axes, ddof=1), rtol=1e-5)
    line = np.polyfit(np.round(weight)[..., 0].ravel()[:24], got[..., 0].ravel()[:24], 1)
    if len(axes) == len(shape) - 1:  # one channel's correction is one straight line
        np.testing.assert_allclose(got[..., 0], np.polyval(line, np.round(weight)[..., 0]), atol=1e-5)


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("shape", [(24, 6), (4, 4, 3, 6), (2, 24, 6)])
def test_corrected_weights_have_the_channels_statistics(shape: tuple[int, ...], per_channel: bool) -> None:
    stacked = len(shape) == 3
    scale_shape = [1] * len(shape)
    scale_shape[-1] = shape[-1] if per_channel else 1
    scale_shape[0] = 2 if stacked else 1
    spec = QuantSpec(per_channel=per_channel, bias_correction=True)
    weight, site_qparams = (
        tensor(2, *shape),
        numbers(jnp.full(scale_shape, 0.6), 4, 3, stacked=stacked),
    )
    got = np.asarray(fake_quant_weight(spec, site_qparams, jnp.asarray(weight)))
    axes = (1,) if stacked else tuple(range(len(shape) - 1))
    np.testing.assert_allclose(got.mean(axes), weight.mean(axes), atol=1e-6)
    np.testing.assert_allclose(got.std(axes, ddof=1), weight.std(axes, ddof=1), rtol=1e-5)
