"""Scales of the whole network that a search may begin with."""

from dataclasses import replace

import numpy as np
import pytest

from evolq_jax.quant.qparams import QParams
from evolq_jax.search.budget import num_evaluations
from evolq_jax.search.config import SearchConfig
from evolq_jax.search.proposal import Proposal
from evolq_jax.search.state import SearchEnd
from tests.objective.test_logits import info_nce_loop
from tests.search.setting import Setting, searched
from tests.search.test_driver import EVOLQ

CONFIG = replace(EVOLQ, passes=1, epsilon=10.0)  # steps so wild that no move wins
SPENT = 7


def run(setting: Setting, config: SearchConfig, qparams: QParams, proposed: QParams | None) -> SearchEnd:
    proposal = None if proposed is None else Proposal(proposed, SPENT)
    found, log, _ = searched(setting.subject._replace(qparams=qparams), config, proposal=proposal)
    if proposal is not None:
        assert (log[0].segment, log[0].evaluations) == ("all", 2 + 2 * bool(config.holdout))
    return found


def worse(qparams: QParams) -> QParams:
    """The same with three times as wide a range for every weight."""
    return {
        name: q._replace(scale=3 * q.scale) if name.startswith("blocks/") and name.endswith("weight") else q
        for name, q in qparams.items()
    }


@pytest.mark.parametrize("holdout", [0.0, 0.5])
def test_a_better_proposal_is_where_the_search_begins(setting: Setting, holdout: float) -> None:
    config, start = replace(CONFIG, holdout=holdout), worse(setting.qparams)
    found = run(setting, config, start, setting.qparams)
    for name, site_qparams in setting.qparams.items():
        np.testing.assert_array_equal(found.qparams[name].scale, site_qparams.scale)
    assert found.fitness < found.start_fitness
    if not holdout:
        assert found.start_fitness == pytest.approx(setting.fitness(start), rel=1e-3)
        assert found.fitness == pytest.approx(setting.fitness(setting.qparams), rel=1e-3)
    assert found.evaluations <= num_evaluations(config, 3, proposed=True)


def test_a_worse_one_changes_nothing_but_the_cost(setting: Setting) -> None:
    found, want = (run(setting, CONFIG, setting.qparams, at) for at in (worse(setting.qparams), None))
    for name, site_qparams in want.qparams.items():
        np.testing.assert_array_equal(found.qparams[name].scale, site_qparams.scale)
    assert found.fitness == want.fitness
    assert found.start_fitness == want.start_fitness
    assert found.evaluations == want.evaluations + 1
    # the cache, the start and the proposal through three blocks; the start through one is not scored again
    more = (SPENT + 3 * 12 + 2 * 3 * 12 - 12) / 3
    assert found.candidate_images == pytest.approx(want.candidate_images + more, abs=2e-3)


@pytest.mark.parametrize("seed", range(4))
def test_images_held_out_must_agree(setting: Setting, seed: int) -> None:
    """A network nearly as good takes the other's place where it is better on both parts of the images."""
    rng = np.random.default_rng(seed)
    proposed = {
        name: q._replace(scale=q.scale * np.exp(0.05 * rng.standard_normal(q.scale.shape)))
        for name, q in setting.qparams.items()
        if name.startswith("blocks/")
    }
    proposed = setting.qparams | proposed

    def fitness(qparams: QParams, part: slice) -> float:
        return info_nce_loop(
            np.asarray(setting.logits(qparams))[part], np.asarray(setting.teacher)[part], 3.0
        )

    parts = slice(6), slice(6, None)
    better = [fitness(proposed, part) < fitness(setting.qparams, part) for part in parts]
    found = run(setting, replace(CONFIG, holdout=0.5), setting.qparams, proposed)
    is_taken = all(np.array_equal(found.qparams[name].scale, proposed[name].scale) for name in proposed)
    assert is_taken == all(better)


@pytest.mark.parametrize("fitness", ["local", "kl+0.5*local"])
def test_a_blocks_own_output_plays_no_part_in_it(setting: Setting, fitness: str) -> None:
    config = replace(CONFIG, fitness=fitness)
    found = run(setting, config, worse(setting.qparams), setting.qparams)
    for name, site_qparams in setting.qparams.items():
        np.testing.assert_array_equal(found.qparams[name].scale, site_qparams.scale)
    assert found.evaluations <= num_evaluations(config, 3, proposed=True)
