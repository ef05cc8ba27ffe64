"""Small programs are compiled without optimizations on CPUs, and otherwise are jitted functions."""

from functools import partial

import jax
import jax.numpy as jnp
import pytest
from jax.stages import Lowered

from evolq_jax.devices.unoptimized import Unoptimized


@partial(Unoptimized, static_argnames=("size",))
def repeated(x: jax.Array, size: int) -> jax.Array:
    return jnp.repeat(x, size)


def test_it_runs_and_tells_shapes_as_a_jitted_function() -> None:
    assert repeated(jnp.arange(2), size=2).tolist() == [0, 0, 1, 1]
    assert repeated.eval_shape(jnp.arange(2), size=3).shape == (6,)
    assert isinstance(repeated.lower(jnp.arange(2), size=2), Lowered)


def test_no_jitted_function_calls_it_on_a_cpu() -> None:
    if jax.default_backend() != "cpu":
        pytest.skip("compiled as everything else")
    with pytest.raises(ValueError, match="top-level"):  # JAX takes compiler options there alone
        jax.jit(lambda x: repeated(x, size=2))(jnp.arange(2))
