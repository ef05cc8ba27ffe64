"""What the block-wise search can be told to do beside the paper's: each in a whole small search."""

from collections import Counter
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evolq_jax.errors import UserError
from evolq_jax.objective.logits import kl
from evolq_jax.quant.qparams import QParams, SiteQParams
from evolq_jax.search import programs
from evolq_jax.search.budget import num_evaluations
from evolq_jax.search.config import SearchConfig
from evolq_jax.typing import Array
from tests.search.setting import Setting
from tests.search.test_driver import EVOLQ, SNES, run


def test_the_budget_counts_images_through_the_part_of_the_network_that_runs(setting: Setting) -> None:
    """Six of twelve images held out: both are counted, and the cache of each pass's inputs."""
    config = replace(EVOLQ, holdout=0.5, passes=1, epsilon=10.0)  # steps so wild that no move wins
    _, result, generations = run(setting, config)
    assert result.kept == 0
    by_block = [12 + (6 + 6 + 2 * 4 * 6) / 3, 2 * 4 * 6 * 2 / 3, 2 * 4 * 6]  # the first scores the start
    got = [g.candidate_images for g in generations if g.generation == 1]
    np.testing.assert_allclose(got, np.cumsum(by_block), atol=1e-3)
    assert result.candidate_images == got[-1]


@pytest.mark.parametrize(("budget", "generations"), [(1, 1), (53, 3), (240, 8)])
def test_a_budget_ends_the_search_with_the_generation_that_spends_it(
    setting: Setting, budget: int, generations: int
) -> None:
    """Whatever the passes. A pass of EvolQ costs 12, a start 4, generations 16, 32 and 48 twice each."""
    _, result, told = run(setting, replace(EVOLQ, passes=1, budget=budget))
    assert len(told) == generations
    assert [g.candidate_images >= budget for g in told] == [False] * (generations - 1) + [True]
    assert result.fitness == pytest.approx(setting.fitness(result.qparams), rel=1e-3)


def test_a_pass_of_grids_comes_first(setting: Setting) -> None:
    """Two coordinates a block, two sweeps of three points; then two generations of three children."""
    config = replace(SNES, algorithm="OnePlusLambda", sites=EVOLQ.sites, grid_start=2, population_size=3)
    _, result, told = run(setting, config)
    counts = Counter((g.pass_number, g.block) for g in told)
    assert counts == {(0, block): 4 for block in range(3)} | {(1, block): 2 for block in range(3)}
    assert result.evaluations == num_evaluations(config, 3, 3 * 2) == told[-1].evaluations
    best = [g.best_fitness for g in told]
    assert best == sorted(best, reverse=True)
    assert result.fitness == pytest.approx(setting.fitness(result.qparams), rel=1e-3)
    alone = replace(config, algorithm="Grid", grid_start=0, passes=1)
    assert num_evaluations(alone, 3, 3 * 2) == 1 + 2 * 6 * 3
    assert run(setting, alone).result.fitness == best[11]


def test_neighbouring_blocks_are_searched_at_once(setting: Setting) -> None:
    """Of three blocks two at a time: the last and the middle, then the middle again and the first."""
    config = replace(SNES, sites=("*/fc1/weight",), fitness="info_nce", blocks_per_visit=2)
    _, result, told = run(setting, config)
    assert [g.block for g in told] == [1, 1, 0, 0]
    assert result.evaluations == num_evaluations(config, 2) == 1 + 2 * 2 * 4
    assert result.candidate_images == pytest.approx(12 + (1 + 2 * 4) * 12 * 2 / 3 + 2 * 4 * 12, abs=1e-3)
    assert result.fitness == pytest.approx(setting.fitness(result.qparams), rel=1e-3)
    name = "blocks/mlp/fc1/weight"
    ratio = np.asarray(result.qparams[name].scale / setting.qparams[name].scale).reshape(3, -1)
    np.testing.assert_allclose(ratio, ratio[:, :1].repeat(ratio.shape[1], 1), rtol=1e-5)
    assert len({round(float(r), 4) for r in ratio[:, 0]}) > 1  # each block has its own
    local = run(setting, replace(config, fitness="local")).result
    assert local.fitness < local.start_fitness
    wide = replace(config, blocks_per_visit=99)
    assert [g.block for g in run(setting, wide).generations] == [0, 0]


def test_halving_scores_few_candidates_on_all_images(setting: Setting) -> None:
    config = replace(EVOLQ, halving=2, passes=1)
    _, result, told = run(setting, config)
    assert result.evaluations == num_evaluations(config, 3) == 1 + 3 * 2 * (4 + 2)
    # cache, start; then 4 candidates on 6 images and 2 on 12, through one block of three
    assert told[0].candidate_images == pytest.approx(12 + (12 + 4 * 6 + 2 * 12) / 3, abs=1e-3)
    assert result.fitness == pytest.approx(setting.fitness(result.qparams), rel=1e-3)
    assert result.fitness < result.start_fitness


@pytest.mark.parametrize(("min_gain", "moves"), [(1e-6, True), (1e6, False)])
def test_moves_within_the_noise_are_refused(
    setting: Setting, monkeypatch: pytest.MonkeyPatch, min_gain: float, moves: bool
) -> None:
    def coarse(sites: tuple[str, ...], block_qparams: QParams, key: Array, size: int) -> QParams:
        """Copies that differ in more than what happens to lie next to a rounding edge."""
        del key, sites

        def copies(site_qparams: SiteQParams) -> SiteQParams:
            factors = (1 + 0.01 * jnp.arange(size)).reshape(-1, *(1,) * site_qparams.scale.ndim)
            repeated = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (size, *leaf.shape)), site_qparams)
            return repeated._replace(scale=factors * site_qparams.scale)

        return {name: copies(site_qparams) for name, site_qparams in block_qparams.items()}

    monkeypatch.setattr(programs, "jitter", coarse)
    config = replace(EVOLQ, min_gain=min_gain, passes=1)
    result = run(setting, config).result
    assert result.noise is not None
    assert 0 < result.noise < 0.5 * result.start_fitness
    assert bool(result.kept) == moves
    assert result.evaluations <= num_evaluations(config, 3) == 1 + 3 * (2 * 4 + 4)


def test_zero_points_and_groups_of_channels_are_searched(setting: Setting) -> None:
    config = replace(SNES, sites=("*",), parametrization="log_per_group", group_size=8, zero_points=True)
    result = run(setting, config).result
    assert result.fitness == pytest.approx(setting.fitness(result.qparams), rel=1e-3)
    assert result.kept
    moved = 0
    for name, (scale, zero_point, _) in result.qparams.items():
        ratio = np.asarray(scale / setting.qparams[name].scale)
        if scale.shape[-1] > 1 and name.startswith("blocks/"):
            groups = ratio.reshape(*ratio.shape[:-1], -1, 8)
            np.testing.assert_allclose(groups, groups[..., :1].repeat(8, -1), rtol=1e-5)
        shift = np.asarray(zero_point - setting.qparams[name].zero_point)
        np.testing.assert_array_equal(shift, np.round(shift))
        moved += np.count_nonzero(shift)
    assert moved


def test_a_local_fitness_runs_one_block_and_held_out_images_may_judge_by_logits(setting: Setting) -> None:
    config = replace(SNES, fitness="local", holdout_fitness="kl", holdout=0.5, generations=3)
    _, result, told = run(setting, config)
    assert result.kept
    assert result.fitness < result.start_fitness < 1
    before, after = (
        kl(setting.logits(s)[6:], setting.teacher[6:]) for s in (setting.qparams, result.qparams)
    )
    assert after < before
    # cache; the float block, start and candidates of each visit; the network as it was; moves held out
    assert told[2].candidate_images == pytest.approx(12 + (6 + 6 + 3 * 4 * 6) / 3 + 6 / 3, abs=1e-3)
    assert result.evaluations <= num_evaluations(config, 3) == 3 * (1 + 3 * 4) + 3 + 1
    best = [g.best_fitness for g in told]  # of one block after the other
    for block in (0, 3, 6):
        assert best[block : block + 3] == sorted(best[block : block + 3], reverse=True)


@pytest.mark.parametrize(
    ("holdout", "count", "size"),
    [
        (0.5, 100, 50),
        (0.5, 300, 50),
        (0.5, 256, 32),
        (0.5, 40, 20),
        (0.0, 40, 40),
        (0.0, 256, 64),
        (0.5, 257, 1),
    ],
)
def test_a_batch_that_nobody_set_fits_the_images(holdout: float, count: int, size: int) -> None:
    search = SearchConfig(holdout=holdout)
    assert search.fitted(count).batch_size == size
    assert search.num_held_out(count) % size == 0
    assert replace(search, batch_size=7).fitted(count).batch_size == 7


@pytest.mark.parametrize("count", [257, 7, 11])
def test_a_prime_number_of_images_makes_no_contrastive_batches(count: int) -> None:
    search = SearchConfig(fitness="info_nce")
    with pytest.raises(UserError, match="make no equal batches") as caught:
        search.num_held_out(count)
    advised = int(str(caught.value).split()[-1])
    assert advised <= count
    assert (search.fitted(advised).batch_size or 1) > 1
    assert search.num_held_out(advised) > 0


@pytest.mark.parametrize(
    ("backend", "settings", "counted"),
    [
        ("gpu", {"passes": 10, "generations": 2}, True),
        ("gpu", {"passes": 9, "generations": 2}, False),
        ("gpu", {"passes": 10, "generations": 2, "budget": 1000}, False),
        ("cpu", {"passes": 10, "generations": 2}, False),
        ("cpu", {"passes": 1, "block_loop": "counted"}, True),
        ("gpu", {"passes": 10, "generations": 2, "block_loop": "shared"}, False),
    ],
)
def test_blocks_have_programs_of_their_own_where_these_pay(
    backend: str, settings: dict[str, Any], counted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    assert SearchConfig(**settings).counts_blocks == counted


def test_an_unknown_loop_is_refused() -> None:
    with pytest.raises(UserError, match=r"search\.block_loop must be one of shared, counted, not 'fast'"):
        SearchConfig(block_loop="fast")  # type: ignore[arg-type]
