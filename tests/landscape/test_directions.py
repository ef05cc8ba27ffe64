from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evolq_jax.errors import UserError
from evolq_jax.landscape.directions import (
    Points,
    between,
    keep_blocks,
    principal_directions,
    random_directions,
    ratio_direction,
    scales_at,
)
from evolq_jax.quant.qparams import QParams
from tests.search.setting import Setting

QKV, HEAD, GELU = "blocks/attn/qkv/weight", "head/weight", "blocks/mlp/gelu"
EPSILON = 0.1


@pytest.fixture
def origin(setting: Setting) -> QParams:
    return {site: setting.qparams[site] for site in (QKV, HEAD, GELU)}


def draw(setting: Setting, origin: QParams, name: Any, count: int = 4, seed: int = 0) -> dict[str, Any]:
    key = jax.random.key(seed)
    return random_directions(setting.tiny.parts, origin, key, name=name, count=count, epsilon=EPSILON)


def point(*coordinates: float, site: int = -1, block: int = -1, along: tuple[int, ...] = (0, 1)) -> Points:
    return Points(
        jnp.array(coordinates, jnp.float32),
        jnp.array(along[: len(coordinates)]),
        jnp.int32(site),
        jnp.int32(block),
    )


def test_a_uniform_box_is_absolute(setting: Setting, origin: QParams) -> None:
    for site, leaf in draw(setting, origin, "uniform", 200).items():
        assert leaf.shape == (200, *origin[site].scale.shape)
        assert float(jnp.abs(leaf).max()) == pytest.approx(EPSILON, rel=0.05)
        assert float(jnp.abs(leaf).max()) <= EPSILON
        assert float(leaf.mean()) == pytest.approx(0.0, abs=0.01)


def test_a_gaussian_is_of_size_epsilon(setting: Setting, origin: QParams) -> None:
    assert float(draw(setting, origin, "gaussian", 50)[QKV].std()) == pytest.approx(EPSILON, rel=0.03)


def test_filters_have_the_norm_of_their_qparams(setting: Setting, origin: QParams) -> None:
    """One filter is a site of a block: [M, L, 1, K] over the last two axes, [M, 1, K] outside blocks."""
    found = draw(setting, origin, "filter")
    want = EPSILON * jnp.linalg.norm(origin[QKV].scale, axis=(1, 2))
    np.testing.assert_allclose(
        jnp.linalg.norm(found[QKV], axis=(2, 3)), jnp.broadcast_to(want, (4, 3)), rtol=1e-5
    )
    want = EPSILON * jnp.linalg.norm(origin[HEAD].scale)
    np.testing.assert_allclose(jnp.linalg.norm(found[HEAD].reshape(4, -1), axis=1), [want] * 4, rtol=1e-5)
    # a single scale has nowhere to go but up or down by epsilon
    np.testing.assert_allclose(jnp.abs(found[GELU][0]), EPSILON * origin[GELU].scale, rtol=1e-5)


def test_the_key_decides_and_other_sites_do_not(setting: Setting, origin: QParams) -> None:
    first, other = draw(setting, origin, "gaussian"), draw(setting, origin, "gaussian", seed=1)
    alone = draw(setting, {QKV: origin[QKV]}, "gaussian")
    np.testing.assert_array_equal(first[QKV], alone[QKV])
    assert not np.array_equal(first[QKV], other[QKV])
    assert not np.array_equal(first[QKV][0], first[QKV][1])


def test_points_along_added_and_multiplied_axes(setting: Setting, origin: QParams) -> None:
    rng = np.random.default_rng(0)
    scale = origin[HEAD].scale
    d = jnp.asarray(0.3 * rng.standard_normal((2, *scale.shape)), jnp.float32)
    at = partial(scales_at, setting.tiny.parts, origin=origin, directions={HEAD: d})
    added = at(log=(False, False), point=point(0.5, -1.0))[HEAD].scale
    np.testing.assert_allclose(added, jnp.abs(scale + 0.5 * d[0] - d[1]), rtol=1e-5)
    multiplied = at(log=(True, False), point=point(0.5, -1.0))[HEAD].scale
    np.testing.assert_allclose(multiplied, jnp.abs(scale * jnp.exp(0.5 * d[0]) - d[1]), rtol=1e-5)
    swapped = at(log=(False, False), point=point(0.5, -1.0, along=(1, 0)))[HEAD].scale
    np.testing.assert_allclose(swapped, jnp.abs(scale + 0.5 * d[1] - d[0]), rtol=1e-5)
    assert float(jnp.abs(scale).max()) < float(jnp.abs(d).max())  # the box did reach below zero
    assert float(added.min()) > 0


def test_zero_points_and_other_sites_stay(setting: Setting, origin: QParams) -> None:
    d = ratio_direction({QKV: origin[QKV]}, 0.1)
    found = scales_at(setting.tiny.parts, setting.qparams, d, point(1.0), log=(True,))
    assert found.keys() == setting.qparams.keys()
    for site, site_qparams in setting.qparams.items():
        np.testing.assert_array_equal(found[site].zero_point, site_qparams.zero_point)
        ratio = np.exp(0.1) if site == QKV else 1.0
        np.testing.assert_allclose(found[site].scale, ratio * site_qparams.scale, rtol=1e-6)


def test_a_scale_at_zero_stays_positive(setting: Setting, origin: QParams) -> None:
    d = {HEAD: -origin[HEAD].scale[None]}
    found = scales_at(setting.tiny.parts, origin, d, point(1.0), log=(False,))[HEAD].scale
    assert float(found.min()) > 0


def test_one_site_of_one_block_moves_alone(setting: Setting, origin: QParams) -> None:
    moving = ratio_direction(origin, 0.5)
    number = sorted(moving).index(QKV)
    found = scales_at(setting.tiny.parts, origin, moving, point(1.0, site=number, block=1), log=(True,))
    ratios = {site: np.asarray(found[site].scale / origin[site].scale) for site in origin}
    np.testing.assert_array_equal(ratios[HEAD], 1.0)
    np.testing.assert_array_equal(ratios[GELU], 1.0)
    np.testing.assert_array_equal(ratios[QKV][[0, 2]], 1.0)
    np.testing.assert_allclose(ratios[QKV][1], np.exp(0.5), rtol=1e-6)


def test_between_ends_where_it_should(setting: Setting, origin: QParams) -> None:
    end = {site: q._replace(scale=1.3 * q.scale) for site, q in origin.items()}
    d = between(origin, end)
    for t, want in ((0.0, origin), (1.0, end)):
        found = scales_at(setting.tiny.parts, origin, d, point(t), log=(False,))
        for site in origin:
            np.testing.assert_allclose(found[site].scale, want[site].scale, rtol=1e-6)


def test_principal_directions_of_points_on_a_known_plane(setting: Setting, origin: QParams) -> None:
    """Points are combinations of two orthogonal moves, the first three times as long."""
    rng = np.random.default_rng(0)
    scale, size = origin[HEAD].scale, origin[HEAD].scale.size
    basis = np.linalg.qr(rng.standard_normal((size, 2)))[0].T.reshape(2, *scale.shape)
    weights = np.array([[3.0, 0.5], [-3.0, 0.5], [3.0, -0.5], [-3.0, -0.5]]) / 10
    stacked = scale * jnp.exp(jnp.asarray(np.tensordot(weights, basis, 1), jnp.float32))
    found, shares = principal_directions({HEAD: origin[HEAD]}, {HEAD: stacked}, 2)
    rms = [0.3, 0.05]
    for row, want, length in zip(np.asarray(found[HEAD]), basis, rms, strict=True):
        assert np.linalg.norm(row) == pytest.approx(length, rel=1e-3)
        cosine = np.sum(row * want) / np.linalg.norm(row)
        assert abs(cosine) == pytest.approx(1.0, rel=1e-3)
        assert row.ravel()[np.abs(row).argmax()] > 0
    np.testing.assert_allclose(shares, [0.09 / 0.0925, 0.0025 / 0.0925], rtol=1e-3)


def test_principal_directions_need_points_that_differ(setting: Setting, origin: QParams) -> None:
    same = {site: jnp.stack([q.scale] * 2) for site, q in origin.items()}
    with pytest.raises(UserError, match="3 principal directions need as many points, and there are 2"):
        principal_directions(origin, same, 3)
    with pytest.raises(UserError, match="do not differ from the origin"):
        principal_directions(origin, same, 1)


def test_blocks_are_kept_and_what_is_outside_dropped(setting: Setting, origin: QParams) -> None:
    found = keep_blocks(setting.tiny.parts, ratio_direction(origin, 0.5), (0, 2))
    assert set(found) == {QKV, GELU}
    np.testing.assert_array_equal(found[QKV][0, :, 0, 0], [0.5, 0.0, 0.5])
