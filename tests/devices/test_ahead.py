import time
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.timing import count_compilations
from evolq_jax.devices import ahead
from evolq_jax.devices.ahead import abandon, compile_ahead, shapes_of


def wait_for_all() -> None:
    """Until nothing is compiled ahead any more."""
    for thread in ahead._threads:  # pyright: ignore[reportPrivateUsage]
        thread.join()


def test_a_call_finds_what_was_compiled_ahead() -> None:
    @jax.jit
    def product(x: jax.Array) -> jax.Array:
        return x @ x.T * 1.375

    x = jax.device_put(np.ones((3, 2), np.float32))
    with jax.default_matmul_precision("float32"):
        with count_compilations() as ahead:
            compile_ahead(partial(product.lower, shapes_of(x)))
            wait_for_all()
        with count_compilations() as called:
            product(x)
    assert len(ahead.seconds) == 1
    assert called.seconds == []


def test_a_call_waits_for_what_is_being_compiled() -> None:
    @jax.jit
    def powers(x: jax.Array) -> jax.Array:
        for _ in range(50):
            x = jnp.sin(x @ x)
        return x

    x = jax.device_put(np.eye(4, dtype=np.float32))
    with count_compilations() as both:
        compile_ahead(partial(powers.lower, x))
        powers(x)
        wait_for_all()
    assert len(both.seconds) == 1


def test_what_fails_ahead_is_told_by_the_call() -> None:
    def fail() -> jax.stages.Lowered:
        raise ValueError("no shape")

    compile_ahead(fail)
    wait_for_all()  # no thread has died loudly: pytest would count that as an error


def test_what_waits_is_abandoned() -> None:
    begun: list[int] = []

    def lower(number: int) -> jax.stages.Lowered:
        begun.append(number)
        time.sleep(0.2)
        raise ValueError("enough")

    compile_ahead(*(partial(lower, number) for number in range(50)))
    abandon()
    assert len(begun) < 50
    compile_ahead(partial(lower, 50))
    wait_for_all()
    assert begun[-1] == 50
