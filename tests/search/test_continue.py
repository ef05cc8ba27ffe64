"""A search that goes on from a position ends, bit for bit, as the one that was not interrupted."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evolq_jax.network.parts import ModelParts
from evolq_jax.quant.qparams import QParams
from evolq_jax.quant.spec import QuantSpec, Specs
from evolq_jax.search.blockwise import search
from evolq_jax.search.config import SearchConfig
from evolq_jax.search.records import Generation, Position, SearchResult
from evolq_jax.typing import Array, Params
from tests.numbers import numbers
from tests.search.setting import BATCH, Setting
from tests.two_segments import PARTS, make_inputs, make_params

Arguments = tuple[ModelParts, Specs, Params, QParams, Array, Array]
SNES = SearchConfig(
    sites=("blocks/*",),
    passes=2,
    generations=2,
    population_size=3,
    batch_size=BATCH,
    holdout=0.5,
    image_chunk=6,
    population_chunk=3,
)
EVOLQ = replace(
    SNES,
    algorithm="EvolQ",
    parametrization="raw",
    epsilon=0.05,
    pool_size=5,
    tournament_size=3,
    holdout=0.0,
    rescore_start=True,
)


def check_positions(visits: tuple[int, ...], config: SearchConfig, arguments: Arguments) -> SearchResult:
    """Goes on after these visits with what a file would have kept."""
    positions: list[Position] = []
    log: list[Generation] = []
    whole = search(config, *arguments, jax.random.key(3), log.append, positions.append)
    assert [p.visits for p in positions] == list(range(1, whole.visits + 1))
    assert whole.kept > 0
    for position in (positions[done - 1] for done in visits):
        copied = jax.tree.map(
            lambda leaf: jnp.asarray(np.asarray(leaf)) if isinstance(leaf, jax.Array) else leaf, position
        )
        rest: list[Generation] = []
        found = search(config, *arguments, jax.random.key(3), rest.append, position=copied)
        for site, site_qparams in whole.qparams.items():
            np.testing.assert_array_equal(found.qparams[site].scale, site_qparams.scale)
            np.testing.assert_array_equal(found.qparams[site].zero_point, site_qparams.zero_point)
        assert found._replace(qparams={}, seconds=0) == whole._replace(qparams={}, seconds=0)
        assert found.seconds >= position.seconds
        expected = log[position.visits * config.generations :]
        assert [g._replace(seconds=0) for g in rest] == [g._replace(seconds=0) for g in expected]
    return whole


@pytest.mark.parametrize("config", [SNES, EVOLQ], ids=["SNES, held out", "EvolQ, start scored again"])
def test_going_on_from_every_position(setting: Setting, config: SearchConfig) -> None:
    tiny = setting.tiny
    arguments = tiny.parts, setting.specs, tiny.params, setting.qparams, setting.tokens, setting.teacher
    in_a_pass, between_passes = 2, 3
    assert check_positions((in_a_pass, between_passes), config, arguments).visits == 6


def test_going_on_in_a_network_of_two_segments() -> None:
    params = make_params()
    specs = tuple((f"{name}/weight", QuantSpec(per_channel=True)) for name in "ab")
    qparams = {
        f"{name}/weight": numbers(jnp.full((length, 1, width), 0.3), 0, 3, stacked=True)
        for name, length, width in (("a", 2, 6), ("b", 3, 4))
    }
    tokens = make_inputs(12)
    teacher = jax.random.normal(jax.random.key(1), (12, 4))
    config = replace(SNES, sites=("*",), passes=2)
    between_segments, in_the_second, at_the_end = 3, 9, 10
    visits = between_segments, in_the_second, at_the_end
    assert check_positions(visits, config, (PARTS, specs, params, qparams, tokens, teacher)).visits == 10
