"""BatchNorm by its definition in numpy, and folded layers against unfolded ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evolq_jax.models.batch_norm import EPS, batch_norm, fold
from evolq_jax.models.layers import conv, linear
from evolq_jax.network.run import at
from evolq_jax.trees import flatten
from evolq_jax.typing import Params

RNG = np.random.default_rng(0)


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def bn(*shape: int) -> Params:
    return {
        "weight": 1 + 0.5 * normal(*shape),
        "bias": normal(*shape),
        "running_mean": normal(*shape),
        "running_var": RNG.uniform(0.01, 2, shape).astype(np.float32),
    }


def test_it_is_the_definition() -> None:
    params, x = bn(5), jnp.asarray(normal(3, 4, 5))
    mean, var = params["running_mean"], params["running_var"]
    want = (x - mean) / np.sqrt(var + EPS) * params["weight"] + params["bias"]
    np.testing.assert_allclose(batch_norm(params, x), want, atol=1e-5)


@pytest.mark.parametrize(
    "layer",
    [
        {"weight": normal(3, 4), "bn": bn(4)},
        {"weight": normal(3, 4), "bias": normal(4), "bn": bn(4)},
        {"weight": normal(3, 4), "bias": normal(4), "bn_before": bn(3)},
        {"weight": normal(3, 4), "bias": normal(4), "bn_before": bn(3), "bn": bn(4)},
    ],
    ids=["after", "after a bias", "before", "both"],
)
def test_a_folded_linear_layer_is_the_same_function(layer: Params) -> None:
    x = jnp.asarray(normal(7, 3))
    folded = fold({"outer": {"layer": layer}})
    assert set(flatten(folded)) == {"outer/layer/weight", "outer/layer/bias"}
    np.testing.assert_allclose(linear(folded["outer"]["layer"], x), linear(layer, x), rtol=1e-4, atol=1e-4)


def test_stacked_convolutions_are_folded_block_by_block() -> None:
    stacked = {"weight": normal(3, 3, 3, 2, 6), "bn": bn(3, 6)}
    folded, x = fold(stacked), jnp.asarray(normal(2, 5, 5, 4))
    assert (folded["weight"].shape, folded["bias"].shape) == ((3, 3, 3, 2, 6), (3, 6))
    for index in range(3):
        got, want = conv(at(folded, index), x), conv(at(stacked, index), x)
        np.testing.assert_allclose(got, want, atol=1e-4)


def test_stacked_linear_layers_after_a_batch_norm() -> None:
    stacked = {"weight": normal(2, 3, 4), "bias": normal(2, 4), "bn_before": bn(2, 3)}
    folded, x = fold(stacked), jnp.asarray(normal(7, 3))
    for index in range(2):
        np.testing.assert_allclose(linear(at(folded, index), x), linear(at(stacked, index), x), atol=1e-4)


def test_what_has_no_batch_norm_stays() -> None:
    params = {"norm": {"weight": normal(3), "bias": normal(3)}, "table": normal(2, 3)}
    assert jax.tree.all(jax.tree.map(np.array_equal, fold(params), params))
