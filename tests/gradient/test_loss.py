import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evolq_jax.gradient.loss import straight_through_loss
from evolq_jax.gradient.theta import encode
from tests.gradient.setting import data_of, problem_of
from tests.search.setting import Setting, fitness_loop


def test_the_loss_is_the_search_s_fitness_and_its_gradient_points_uphill(setting: Setting) -> None:
    scale_loss, data = problem_of(setting).loss, data_of(setting)
    theta = encode(scale_loss, setting.qparams)

    @jax.jit
    def value_and_grad(theta: dict[str, jax.Array]) -> tuple[jax.Array, dict[str, jax.Array]]:
        loss = lambda t: straight_through_loss(scale_loss, data, t, jnp.arange(12))  # noqa: E731
        return jax.value_and_grad(loss)(theta)

    value, gradient = value_and_grad(theta)
    assert float(value) == pytest.approx(
        fitness_loop(setting.logits(setting.qparams), setting.teacher), rel=1e-3
    )
    norm = np.sqrt(sum(float(jnp.sum(leaf**2)) for leaf in gradient.values()))
    assert norm > 0
    step = {site: 0.3 * leaf / norm for site, leaf in gradient.items()}
    up = value_and_grad({site: theta[site] + step[site] for site in theta})[0]
    down = value_and_grad({site: theta[site] - step[site] for site in theta})[0]
    assert float(down) < float(up)
