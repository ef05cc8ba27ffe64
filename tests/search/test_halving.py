import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evolq_jax.quant.qparams import QParams, SiteQParams
from evolq_jax.search.halving import halve, image_counts, num_scored, stages
from evolq_jax.typing import Array

IMAGES = np.random.default_rng(0).uniform(0, 1, (6, 8)).astype(np.float32)  # a candidate's loss on each image


@pytest.mark.parametrize(
    ("stages", "num_images", "counts"), [(1, 40, (40,)), (2, 40, (20, 40)), (3, 50, (20, 30, 50))]
)
def test_images_double_in_whole_batches(stages: int, num_images: int, counts: tuple[int, ...]) -> None:
    assert image_counts(stages, num_images, 10) == counts


@pytest.mark.parametrize("size", [1, 2, 6])
def test_the_better_half_is_scored_on_more_images(size: int) -> None:
    calls: list[tuple[int, int]] = []

    def score(candidates: QParams, num_images: int) -> Array:
        rows = candidates["w"].scale
        calls.append((len(rows), num_images))
        return rows[:, :num_images].mean(1)

    candidates = {"w": SiteQParams(jnp.asarray(IMAGES[:size]), *[jnp.zeros((size, 1))] * 2)}
    got = np.asarray(halve(score, candidates, (2, 4, 8)))
    alive, want_calls = list(range(size)), []
    for count in {1: (8,), 2: (2, 8), 6: (2, 4, 8)}[size]:
        want_calls.append((len(alive), count))
        means = {i: IMAGES[i, :count].mean() for i in alive}
        order = sorted(alive, key=means.__getitem__)
        alive = order if count == 8 else order[: (len(order) + 1) // 2]
    assert calls == want_calls
    assert stages(size, (2, 4, 8)) == calls
    assert num_scored(3, size) == sum(number for number, _ in calls)
    np.testing.assert_allclose(got[alive], [IMAGES[i].mean() for i in alive], rtol=1e-5)
    others = [i for i in range(size) if i not in alive]
    assert all(got[i] >= got[alive].max() for i in others)


def test_those_left_behind_keep_their_order() -> None:
    def score(candidates: QParams, num_images: int) -> Array:
        return candidates["w"].scale[:, 0] / num_images

    losses = jnp.array([5.0, 1.0, jnp.nan, 4.0, 2.0, 7.0])
    candidates = {"w": SiteQParams(losses[:, None], *[jnp.zeros((6, 1))] * 2)}
    got = jax.device_get(halve(score, candidates, (1, 2)))
    np.testing.assert_allclose(got, [2.0, 0.5, np.nan, 2.0, 1.0, 4.0])
