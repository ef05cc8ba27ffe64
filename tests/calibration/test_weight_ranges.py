"""Weights that share an observer's loop get the numbers that the observer gives each of them alone."""

from operator import itemgetter

import jax
import jax.numpy as jnp
import pytest
from numpy.testing import assert_allclose

from evolq_jax.calibration.weight_ranges import weight_ranges
from evolq_jax.network.sites import is_stacked
from evolq_jax.quant.observers import OBSERVERS
from evolq_jax.quant.observers.of_weight import weight_qparams
from evolq_jax.quant.spec import QuantSpec
from evolq_jax.trees import flatten
from tests.tiny import make_tiny

ALONE = jax.jit(weight_qparams, static_argnums=0)


@pytest.mark.parametrize("observer", ["minmax", "omse", "omse_shared"])
def test_each_weight_gets_what_it_gets_alone(observer: str) -> None:
    tiny = make_tiny(2)
    spec = QuantSpec(signed=True, per_channel=True, observer=OBSERVERS[observer])
    weights = {name: leaf for name, leaf in flatten(tiny.params).items() if name.endswith("weight")}
    # Four have inputs of one size; the head's 10 outputs are filled up. One block has more bits.
    weights = {name: leaf for name, leaf in weights.items() if "norm" not in name}
    ones = {
        name: jnp.ones((len(leaf), 1, 1) if is_stacked(tiny.parts, name) else [1] * leaf.ndim)
        for name, leaf in weights.items()
    }
    bits = {
        name: 2 + jnp.arange(len(one)).reshape(-1, *[1] * (one.ndim - 1)) * one for name, one in ones.items()
    }
    counted = "blocks/attn/qkv/weight"
    importance = {counted: jnp.abs(weights[counted])}

    specs = tuple((name, spec) for name in weights)
    found = weight_ranges(tiny.parts, specs, bits, tiny.params, importance=importance)

    assert set(found) == set(weights)
    for name, weight in weights.items():
        given = bits[name], weight, importance.get(name)
        if is_stacked(tiny.parts, name):
            blocks = [ALONE(spec, *jax.tree.map(itemgetter(block), given)) for block in range(2)]
            wanted = jax.tree.map(lambda *leaves: jnp.stack(leaves), *blocks)
        else:
            wanted = ALONE(spec, *given)
        for mine, alone in zip(found[name], wanted, strict=True):
            assert mine.shape == alone.shape
            assert_allclose(mine, alone, rtol=1e-6)
