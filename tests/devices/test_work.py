"""Work is counted from traces; the right counts are known by hand."""

import jax
import jax.numpy as jnp
import pytest

from evolq_jax.devices.work import Work, count_work
from evolq_jax.typing import Array

MATRIX = jax.ShapeDtypeStruct((8, 8), jnp.float32)
BYTES = 4 * 64


@jax.jit
def product(a: Array, b: Array) -> Array:
    return a @ b


@jax.jit
def chain(a: Array) -> Array:
    return jnp.abs(a * 2.0 + 1.0).sum(0)


def test_products_and_elements_are_counted() -> None:
    assert count_work(product, MATRIX, MATRIX) == Work(2 * 8**3, 0, BYTES, (1,))
    found = count_work(chain, MATRIX)  # a product, a sum, a modulus, and a sum that reads all
    assert (found.products, found.elements) == (0, 4 * 64)


def test_what_is_fused_is_not_held() -> None:
    assert count_work(chain, MATRIX).held == 4 * 8
    twice = jax.jit(lambda a: (jnp.sin(a), jnp.sin(a) @ jnp.sin(a)))
    assert count_work(twice, MATRIX).held >= 2 * BYTES


def test_loops_multiply_work_and_hold_one_step() -> None:
    @jax.jit
    def loop(a: Array) -> Array:
        return jax.lax.map(lambda b: (b @ b @ b).sum(), a)

    found = count_work(loop, jax.ShapeDtypeStruct((5, 8, 8), jnp.float32))
    assert found.products == 5 * 2 * 2 * 8**3
    assert 2 * BYTES <= found.held < 4 * BYTES  # two products of one step, and five sums


def test_programs_count_once_and_their_work_each_time() -> None:
    def run(a: Array) -> Array:
        return product(product(a, a), product(a, a)) + 1.0

    found = count_work(run, MATRIX)
    assert found.products == 3 * 2 * 8**3
    assert found.programs == (1, 0)  # the product, and the sum between programs


def test_what_is_given_back_is_a_copy() -> None:
    assert count_work(jax.jit(lambda a: (a, a @ a)), MATRIX).held == pytest.approx(2 * BYTES)


def test_convolutions_and_branches() -> None:
    image, kernel = (
        jax.ShapeDtypeStruct((1, 4, 4, 3), jnp.float32),
        jax.ShapeDtypeStruct((1, 1, 3, 5), jnp.float32),
    )

    @jax.jit
    def convolve(x: Array, w: Array) -> Array:
        return jax.lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    assert count_work(convolve, image, kernel).products == 2 * 16 * 3 * 5
    choose = jax.jit(lambda a: jax.lax.cond(a[0, 0] > 0, lambda: a @ a, lambda: a @ a @ a))
    assert count_work(choose, MATRIX).products == 2 * 2 * 8**3
