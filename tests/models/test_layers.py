"""Layers against plain loops in numpy."""

import jax.numpy as jnp
import numpy as np
import pytest

from evolq_jax.models.layers import Within, conv, max_pool, relu6
from evolq_jax.models.resnet import shortcut
from evolq_jax.quant.sites import FloatSite
from evolq_jax.typing import Array, Params

RNG = np.random.default_rng(0)


def windows(x: np.ndarray, size: int, stride: int, fill: float) -> np.ndarray:
    """[B, height / stride, width / stride, size, size, K], from the image padded on every side."""
    pad = size // 2
    padded = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)), constant_values=fill)
    rows, columns = range(0, x.shape[1], stride), range(0, x.shape[2], stride)
    return np.stack([np.stack([padded[:, i : i + size, j : j + size] for j in columns], 1) for i in rows], 1)


@pytest.mark.parametrize("size", [1, 3, 7])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("groups", [1, 2, 6])
@pytest.mark.parametrize("height", [8, 7])
def test_convolution(size: int, stride: int, groups: int, height: int) -> None:
    x = RNG.standard_normal((2, height, 6, 6)).astype(np.float32)
    weight = RNG.standard_normal((size, size, 6 // groups, 12)).astype(np.float32)
    bias = RNG.standard_normal(12).astype(np.float32)
    seen = windows(x, size, stride, 0.0)
    inside, outside = 6 // groups, 12 // groups
    parts = [
        np.einsum(
            "bhwijk,ijko->bhwo",
            seen[..., group * inside : (group + 1) * inside],
            weight[..., group * outside : (group + 1) * outside],
        )
        for group in range(groups)
    ]
    got = conv({"weight": jnp.asarray(weight), "bias": jnp.asarray(bias)}, jnp.asarray(x), stride)
    np.testing.assert_allclose(got, np.concatenate(parts, -1) + bias, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("height", [8, 7])
def test_max_pool(height: int) -> None:
    x = RNG.standard_normal((2, height, 6, 3)).astype(np.float32) - 3
    want = windows(x, 3, 2, -np.inf).max((3, 4))
    np.testing.assert_array_equal(max_pool(jnp.asarray(x), 3, 2), want)


def test_option_a_takes_every_second_pixel_and_pads_channels() -> None:
    x = RNG.standard_normal((2, 4, 6, 4)).astype(np.float32)
    got = np.asarray(shortcut({}, FloatSite(), jnp.asarray(x), 2))
    assert got.shape == (2, 2, 3, 8)
    np.testing.assert_array_equal(got[..., 2:6], x[:, [0, 2]][:, :, [0, 2, 4]])
    assert not got[..., :2].any()
    assert not got[..., 6:].any()
    assert shortcut({}, FloatSite(), jnp.asarray(x), 1).shape == x.shape


def test_relu6() -> None:
    np.testing.assert_array_equal(relu6(jnp.asarray([-1.0, 0.0, 2.5, 6.0, 7.0])), [0, 0, 2.5, 6, 6])


def test_within_puts_a_path_before_the_names() -> None:
    seen: list[tuple[str, ...]] = []
    x, weight, bias = jnp.zeros(()), jnp.ones(()), jnp.full((), 2.0)

    class Recorder(FloatSite):
        def __call__(self, name: str, x: Array) -> Array:
            seen.append((name,))
            return x

        def layer_norm(self, name: str, source: str, x: Array, norm: Params, *, eps: float) -> Array:
            seen.append((name, source))
            return x + norm["weight"] + 10 * norm["bias"] + 100 * eps

        def softmax(self, name: str, source: str, logits: Array) -> Array:
            seen.append((name, source))
            return logits + 2

    site = Within(Within(Recorder(), "a"), "b.0")
    assert site("x", x) == 0
    assert site.layer_norm("y", "x", x, {"weight": weight, "bias": bias}, eps=3.0) == 321
    assert site.softmax("z", "x", x) == 2
    assert seen == [("a/b.0/x",), ("a/b.0/y", "a/b.0/x"), ("a/b.0/z", "a/b.0/x")]
