"""A network of two segments of different width and depth, as hierarchical networks have."""

import jax.numpy as jnp
import numpy as np

from evolq_jax.network.parts import ModelParts, Segment
from evolq_jax.network.run import unchanged
from evolq_jax.typing import Array, Params, Site

WIDTH_A, WIDTH_B = 6, 4


def _enter_a(params: Params, site: Site, x: Array) -> Array:
    del params
    return site("image", x)


def _enter_b(params: Params, site: Site, x: Array) -> Array:
    return site("down", x @ params["down"])


def _block(params: Params, site: Site, x: Array) -> Array:
    return x + site("h", jnp.tanh(x @ params["weight"]))


def _down(params: Params, site: Site, x: Array) -> Array:
    return site("out", x @ params["weight"])


def _head(params: Params, site: Site, x: Array) -> Array:
    del params
    return site("head", x)


SEGMENTS = (Segment("a", 2, _enter_a, _block), Segment("b", 3, _enter_b, _block))
PARTS = ModelParts(SEGMENTS, _head, features="head")
# The same with what is between them as a segment of one block, which changes the shape.
DOWN = Segment("down", 1, unchanged, _down)
WITH_DOWN = ModelParts((SEGMENTS[0], DOWN, Segment("b", 3, unchanged, _block)), _head, features="head")


def make_params() -> Params:
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> Array:
        return jnp.asarray(rng.standard_normal(shape) / 2, jnp.float32)

    return {
        "a": {"weight": normal(2, WIDTH_A, WIDTH_A)},
        "down": normal(WIDTH_A, WIDTH_B),
        "b": {"weight": normal(3, WIDTH_B, WIDTH_B)},
    }


def params_with_down() -> Params:
    """The same, as `WITH_DOWN` has them."""
    params = make_params()
    return params | {"down": {"weight": params["down"][None]}}


def make_inputs(count: int) -> Array:
    return jnp.asarray(np.random.default_rng(1).standard_normal((count, WIDTH_A)), jnp.float32)
