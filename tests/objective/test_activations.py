import jax.numpy as jnp
import numpy as np

from evolq_jax.objective.activations import relative_error

RNG = np.random.default_rng(0)


def test_a_token_s_error_counts_by_its_own_size() -> None:
    wanted = RNG.standard_normal((2, 3, 5)).astype(np.float32)
    wanted[0, 0] *= 1000  # a massive activation
    wanted[1, 2] = 0  # a dead token: not divided by zero
    output = wanted + 0.1 * RNG.standard_normal(wanted.shape).astype(np.float32)
    sizes = (wanted.astype(np.float64) ** 2).mean(-1)
    floor = 1e-3 * sizes.mean()
    errors = ((output.astype(np.float64) - wanted) ** 2).mean(-1)
    want = [np.mean([errors[i, n] / max(sizes[i, n], floor) for n in range(3)]) for i in range(2)]
    np.testing.assert_allclose(relative_error(jnp.asarray(output), jnp.asarray(wanted)), want, rtol=1e-4)
