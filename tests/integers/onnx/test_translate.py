"""Equations of networks of one's own, beyond those of the families."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evolq_jax.errors import UserError
from evolq_jax.integers.onnx.session import open_onnx
from evolq_jax.integers.onnx.values import groups
from evolq_jax.integers.onnx.write import write_float_onnx
from evolq_jax.network.network import Network
from evolq_jax.network.parts import ModelParts, Segment
from evolq_jax.network.run import unchanged
from evolq_jax.typing import Array, Preprocessing

pytest.importorskip("onnx", reason="onnx is not installed: pip install 'evolq_jax[onnx]'")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: as onnx")


def network(function: Callable[[Array], Array]) -> Network:
    """A network whose only block computes this of its images [B, 4, 4, 3]."""

    def block(params: Any, site: Any, x: Array) -> Array:
        del site
        return function(x * params["gain"])

    def head(params: Any, site: Any, x: Array) -> Array:
        del params, site
        return x.reshape(x.shape[0], -1)

    parts = ModelParts((Segment("blocks", 1, unchanged, block),), head)
    return Network(parts, {"blocks": {"gain": jnp.ones((1, 3))}}, Preprocessing(4, None))


def conv_read_twice(x: Array) -> Array:
    kernel = jnp.arange(27.0).reshape(1, 3, 3, 3) / 27
    y = jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    return (y + jnp.array([1.0, 2.0, 3.0])) * y


@pytest.mark.parametrize(
    "function",
    [
        jax.nn.gelu,
        lambda x: jax.nn.gelu(x, approximate=False),
        jax.nn.silu,
        lambda x: jnp.where(x > 0, jnp.sqrt(jnp.abs(x)), jnp.exp2(x)) + jnp.sign(x) ** 3,
        lambda x: jnp.roll(x, (1, -1), (1, 2))[:, 1:, ::2],
        lambda x: jnp.concatenate([x, jnp.zeros_like(x[..., :1])], axis=-1).transpose(0, 3, 1, 2),
        lambda x: jnp.einsum("bhwc,bhvc->bwhv", x, x),
        lambda x: x.reshape(x.shape[0], 2, 2, 4, 3).swapaxes(1, 3).reshape(-1, 6) @ jnp.eye(6),
        lambda x: x.max((1, 2)) - x.min((1, 2)) + jnp.log1p(x.var((1, 2))),
        conv_read_twice,
    ],
)
def test_it_is_the_same_function(function: Callable[[Array], Array], tmp_path: Path) -> None:
    made, images = network(function), np.random.default_rng(0).standard_normal((3, 4, 4, 3))
    images = images.astype(np.float32)
    found = open_onnx(write_float_onnx(made, tmp_path / "own.onnx"))(images)
    np.testing.assert_allclose(found, made(jnp.asarray(images)), atol=2e-6, rtol=1e-5)


def test_what_it_does_not_know_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"uses 'cumsum', which the ONNX writer does not know: .* stablehlo"):
        write_float_onnx(network(lambda x: jnp.cumsum(x, axis=1)), tmp_path / "own.onnx")


@pytest.mark.parametrize(
    ("old", "new", "wanted"),
    [
        ((2, 6), (2, 2, 3), [([0], [0]), ([1], [1, 2])]),
        ((2, 3, 4), (6, 4), [([0, 1], [0]), ([2], [1])]),
        ((4, 6), (6, 4), [([0, 1], [0, 1])]),
        ((5,), (1, 5, 1), [([0], [0, 1]), ([], [2])]),
        ((1, 5), (5,), [([0, 1], [0])]),
    ],
)
def test_groups_of_a_reshape(
    old: tuple[int, ...], new: tuple[int, ...], wanted: list[tuple[list[int], list[int]]]
) -> None:
    assert groups(old, new) == wanted
