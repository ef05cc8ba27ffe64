"""A search that goes on from a state ends, bit for bit, as the one that was not interrupted."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evolq_jax.objective.objective import Teacher
from evolq_jax.quant.spec import QuantSpec
from evolq_jax.search.config import SearchConfig
from evolq_jax.search.state import SearchEnd
from tests.numbers import numbers
from tests.search.setting import BATCH, Setting, Subject, searched
from tests.two_segments import PARTS, make_inputs, make_params

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


def check_states(visits: tuple[int, ...], config: SearchConfig, subject: Subject) -> SearchEnd:
    """Goes on after these visits with what a file would have kept."""
    whole, log, states = searched(subject, config, seed=3)
    assert [state.visits for state in states] == list(range(1, whole.visits + 1))
    assert whole.kept > 0
    for state in (states[done - 1] for done in visits):
        found, rest, _ = searched(subject, config, seed=4, state=copied(state))  # the key is the state's own
        for site, site_qparams in whole.qparams.items():
            np.testing.assert_array_equal(found.qparams[site].scale, site_qparams.scale)
            np.testing.assert_array_equal(found.qparams[site].zero_point, site_qparams.zero_point)
        assert found._replace(qparams={}, seconds=0) == whole._replace(qparams={}, seconds=0)
        assert found.seconds >= state.seconds
        expected = log[state.visits * config.generations :]
        assert [g._replace(seconds=0) for g in rest] == [g._replace(seconds=0) for g in expected]
    return whole


def copied(state: Any) -> Any:
    """Through the host, as through a file."""

    def one(leaf: Any) -> Any:
        if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(jnp.asarray(np.asarray(jax.random.key_data(leaf))))
        return jnp.asarray(np.asarray(leaf)) if isinstance(leaf, jax.Array) else leaf

    return jax.tree.map(one, state)


@pytest.mark.parametrize("config", [SNES, EVOLQ], ids=["SNES, held out", "EvolQ, start scored again"])
def test_going_on_from_every_state(setting: Setting, config: SearchConfig) -> None:
    in_a_pass, between_passes = 2, 3
    assert check_states((in_a_pass, between_passes), config, setting.subject).visits == 6


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
    subject = Subject(PARTS, specs, params, qparams, tokens, Teacher(teacher))
    assert check_states(visits, config, subject).visits == 10
