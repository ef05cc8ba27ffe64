"""Candidates whose fitness is not finite: they spoil nothing, and a visit without any other stops."""

import math
from dataclasses import replace
from typing import Any

import evosax.algorithms
import jax.numpy as jnp
import pytest

from evolq_jax.errors import UserError
from evolq_jax.search.config import SearchConfig
from tests.search.setting import BATCH, Setting, make_setting, searched

CONFIG = SearchConfig(
    sites=("blocks/mlp/fc1/weight",),
    passes=1,
    generations=4,
    population_size=4,
    epsilon=0.05,
    fitness="info_nce",
    batch_size=BATCH,
    holdout=0.0,
    image_chunk=12,
)


class OneLost(evosax.algorithms.SimpleGA):
    """A genetic algorithm with a first candidate that is not a number."""

    def _ask(self, key: Any, state: Any, params: Any) -> Any:
        population, state = super()._ask(key, state, params)
        return population.at[0].set(jnp.nan), state


class AllLost(evosax.algorithms.SNES):
    """SNES whose candidates are not numbers from the second generation on."""

    def _ask(self, key: Any, state: Any, params: Any) -> Any:
        population, state = super()._ask(key, state, params)
        return jnp.where(state.generation_counter > 0, jnp.nan, population), state


@pytest.fixture(scope="module")
def setting() -> Setting:
    return make_setting(2)


def test_one_candidate_spoils_nothing(setting: Setting) -> None:
    result, generations, _ = searched(setting.subject, replace(CONFIG, algorithm=OneLost))
    assert len(generations) == 2 * 4
    assert all(math.isfinite(record.fitness) for record in generations)
    assert result.fitness < result.start_fitness


def test_a_visit_without_a_finite_candidate_stops(setting: Setting, caplog: pytest.LogCaptureFixture) -> None:
    result, generations, _ = searched(setting.subject, replace(CONFIG, algorithm=AllLost))
    assert (
        "AllLost, blocks block 1, generation 1: no candidate has a finite fitness; the visit" in caplog.text
    )
    assert [record.generation for record in generations] == [0, 1, 0, 1]
    assert [math.isnan(record.fitness) for record in generations] == [False, True] * 2
    assert all(math.isfinite(record.best_fitness) for record in generations)
    assert result.fitness <= result.start_fitness


def test_a_start_that_is_not_a_number_is_refused(setting: Setting) -> None:
    lost = setting._replace(teacher=setting.teacher * jnp.nan)
    with pytest.raises(UserError, match="info_nce of the quantized network is nan where the search starts"):
        searched(lost.subject, CONFIG)


@pytest.mark.parametrize("name", ["CMA_ES", "DiscoveredES", "LM_MA_ES", "MA_ES", "Rm_ES", "Sep_CMA_ES"])
def test_algorithms_that_need_two_say_so(setting: Setting, name: str) -> None:
    """With one they would ask for NaN."""
    alone = replace(CONFIG, algorithm=name, parametrization="log", population_size=1)
    with pytest.raises(UserError, match=f"'{name}' cannot be built with population_size=1: it learns from"):
        searched(setting.subject, alone)


def test_whatever_a_constructor_raises_is_said(setting: Setting) -> None:
    alone = replace(CONFIG, algorithm="iAMaLGaM_Full", parametrization="log", population_size=1)
    with pytest.raises(
        UserError, match="'iAMaLGaM_Full' cannot be built with population_size=1: it needs more"
    ):
        searched(setting.subject, alone)
