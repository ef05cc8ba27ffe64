from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from evolq_jax.landscape.config import LandscapeConfig
from evolq_jax.landscape.grid import Grid, Line, Start, batches, make_grid, network_share
from tests import two_segments
from tests.search.setting import Setting

SITES = ("blocks/attn/qkv/weight", "blocks/attn/proj/weight")  # not in sorted order
LINE = LandscapeConfig(points=5, directions=3)


def grid_of(setting: Setting, config: LandscapeConfig, moving: tuple[str, ...] = SITES) -> Grid:
    number = 2 if config.kind == "plane" else config.num_directions
    return make_grid(config, setting.tiny.parts, moving, number)


def test_a_line_has_every_direction_on_the_same_axis(setting: Setting) -> None:
    grid = grid_of(setting, LINE)
    assert grid.shape == (3, 5)
    np.testing.assert_array_equal(grid.axis, np.array([-1, -0.5, 0, 0.5, 1], np.float32))
    np.testing.assert_array_equal(grid.points.coordinates[:, 0].reshape(3, 5)[1], grid.axis)
    np.testing.assert_array_equal(grid.points.directions[:, 0].reshape(3, 5)[:, 0], [0, 1, 2])
    assert (grid.points.site == -1).all()
    assert set(grid.starts) == {Start(0, 0)}


def test_the_origin_of_an_odd_grid_is_exact(setting: Setting) -> None:
    for points in (21, 51, 201):
        assert (grid_of(setting, replace(LINE, points=points, low=-0.3, high=0.3)).axis == 0).sum() == 1


def test_a_plane_runs_along_x_first(setting: Setting) -> None:
    grid = grid_of(setting, replace(LINE, kind="plane", low=0.0, high=4.0))
    assert grid.shape == (5, 5)
    coordinates, along = np.asarray(grid.points.coordinates), np.asarray(grid.points.directions)
    np.testing.assert_array_equal(coordinates[:7, 0], np.array([0, 1, 2, 3, 4, 0, 1], np.float32))
    np.testing.assert_array_equal(coordinates[:7, 1], np.array([0, 0, 0, 0, 0, 1, 1], np.float32))
    assert (along == [0, 1]).all()


def test_layers_are_one_line_for_each_site_of_each_block(setting: Setting) -> None:
    grid = grid_of(setting, replace(LINE, kind="layers", directions=2))
    assert grid.lines == tuple(Line(site, block) for block in range(3) for site in SITES)
    assert grid.shape == (6, 2, 5)
    assert [start.block for start in grid.starts[::10]] == [0, 0, 1, 1, 2, 2]
    sites = np.asarray(grid.points.site).reshape(grid.shape)
    assert [sorted(SITES)[number] for number in sites[:, 0, 0]] == [*SITES] * 3
    np.testing.assert_array_equal(
        np.asarray(grid.points.block).reshape(grid.shape)[:, 1, 3], [0, 0, 1, 1, 2, 2]
    )
    np.testing.assert_array_equal(np.asarray(grid.points.directions).reshape(grid.shape)[4, :, 0], [0, 1])
    assert network_share(grid, setting.tiny.parts) == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("changes", "moving", "start"),
    [
        ({}, SITES, Start(0, 0)),
        ({"blocks": (2, 1)}, SITES, Start(0, 1)),
        ({}, (*SITES, "head/weight"), Start(None, 0)),
    ],
)
def test_what_comes_before_the_first_move_is_not_run(
    setting: Setting, changes: dict[str, Any], moving: tuple[str, ...], start: Start
) -> None:
    assert set(grid_of(setting, replace(LINE, **changes), moving).starts) == {start}


def test_a_segment_without_the_blocks_asked_for_is_not_run() -> None:
    first, second = two_segments.PARTS.segments
    parts = replace(two_segments.PARTS, segments=(replace(first, length=1), second))
    grid = make_grid(replace(LINE, blocks=(2, 1)), parts, ("a/weight", "b/weight"), 3)
    assert set(grid.starts) == {Start(1, 1)}


def test_batches_cover_the_grid_and_do_not_cross_blocks(setting: Setting) -> None:
    grid = grid_of(setting, replace(LINE, kind="layers", directions=1, blocks=(0, 2)))
    found = list(batches(grid, 4))
    assert [(b.first, b.last) for b in found] == [(0, 4), (4, 8), (8, 10), (10, 14), (14, 18), (18, 20)]
    assert [b.start.block for b in found] == [0, 0, 0, 2, 2, 2]
