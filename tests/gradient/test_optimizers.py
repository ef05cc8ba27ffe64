import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from evolq_jax.errors import UserError
from evolq_jax.gradient.config import BaselineConfig
from evolq_jax.gradient.optimizers import list_optimizers, make_optimizer, make_schedule


def test_the_menu_is_optax_s() -> None:
    names = set(list_optimizers())
    assert {"sgd", "adam", "adamw", "lion", "lbfgs", "rmsprop"} <= names
    assert not any(name.startswith(("_", "scale_by")) for name in names)


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "lion", "lbfgs", "adabelief"])
def test_any_of_them_descends(name: str) -> None:
    config = BaselineConfig(optimizer=name, learning_rate=0.05, schedule="constant")
    optimizer = make_optimizer(config, 20)

    def loss(theta: dict[str, jax.Array]) -> jax.Array:
        return jnp.sum((theta["a"] - 1.0) ** 2)

    @jax.jit
    def step(
        theta: dict[str, jax.Array], state: optax.OptState
    ) -> tuple[dict[str, jax.Array], optax.OptState]:
        value, gradient = jax.value_and_grad(loss)(theta)
        more = {"value": value, "grad": gradient, "value_fn": loss}
        updates, state = optimizer.update(gradient, state, theta, **more)
        return optax.apply_updates(theta, updates), state  # type: ignore[return-value]

    theta = {"a": jnp.zeros(3)}
    state = optimizer.init(theta)
    for _ in range(20):
        theta, state = step(theta, state)
    assert float(loss(theta)) < 1.0


def test_momentum_is_the_config_s() -> None:
    def second_step(momentum: float) -> float:
        config = BaselineConfig(optimizer="sgd", learning_rate=1.0, schedule="constant", momentum=momentum)
        optimizer = make_optimizer(config, 10)
        theta = {"a": jnp.zeros(())}
        state = optimizer.init(theta)
        for _ in range(2):
            updates, state = optimizer.update({"a": jnp.ones(())}, state, theta)
        return float(updates["a"])  # type: ignore[index]

    assert second_step(0.0) == -1.0
    assert second_step(0.5) == -1.5


def test_a_large_gradient_is_clipped() -> None:
    optimizer = make_optimizer(
        BaselineConfig(optimizer="sgd", learning_rate=1.0, schedule="constant", momentum=0.0, clip=0.5), 10
    )
    theta = {"a": jnp.zeros(2)}
    updates, _ = optimizer.update({"a": jnp.array([30.0, 40.0])}, optimizer.init(theta), theta)
    np.testing.assert_allclose(updates["a"], [-0.3, -0.4], rtol=1e-5)  # type: ignore[index]


def test_schedules() -> None:
    def rates(**changes: object) -> list[float]:
        schedule = make_schedule(BaselineConfig(learning_rate=1.0, **changes), 10)  # type: ignore[arg-type]
        return [float(jnp.asarray(schedule(step))) for step in (0, 1, 2, 5, 10)]

    assert rates(schedule="constant") == [1.0] * 5
    assert rates(schedule="linear") == pytest.approx([1.0, 0.9, 0.8, 0.5, 0.0])
    assert rates(schedule="cosine") == pytest.approx(
        [np.cos(np.pi * t / 20) ** 2 for t in (0, 1, 2, 5, 10)], abs=1e-6
    )
    assert rates(schedule="linear", warmup=0.2) == pytest.approx([0.0, 0.5, 1.0, 5 / 8, 0.0])


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(UserError, match=r"unknown baseline\.optimizer 'lbfg'; did you mean 'lbfgs'"):
        make_optimizer(BaselineConfig(optimizer="lbfg"), 10)
