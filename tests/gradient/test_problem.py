"""What cannot descend is refused, and a problem's numbers follow from its settings."""

from dataclasses import replace

import pytest

from evolq_jax.errors import UserError
from evolq_jax.gradient.config import BaselineConfig
from evolq_jax.search.config import SearchConfig
from tests.gradient.setting import BASELINE, HELD_OUT, SEARCH, SITES, problem_of
from tests.search.setting import BATCH, Setting


def test_its_costs_are_counted_in_forwards(setting: Setting) -> None:
    """An evaluation runs all twelve images; a step its mini-batch forwards, and twice as much backwards."""
    problem = problem_of(setting, replace(BASELINE, minibatch=BATCH, evaluate_every=3), 220, search=HELD_OUT)
    assert (problem.num_images, problem.num_held_out, problem.num_searched) == (12, 6, 6)
    assert (problem.step_cost, problem.num_steps) == (18, 220 // (18 + 12 // 3))
    spsa = problem_of(setting, replace(BASELINE, gradient="spsa", spsa_samples=3))
    assert spsa.step_cost == 2 * 3 * 12


def test_it_is_static(setting: Setting) -> None:
    """Equal settings share the optimiser and the compiled programs."""
    first, second = problem_of(setting), problem_of(setting)
    assert first == second
    assert hash(first) == hash(second)
    assert first.optimizer is second.optimizer
    assert first.loss == problem_of(setting, replace(BASELINE, learning_rate=0.5), 900).loss


def test_the_factor_of_lsq_is_for_what_descends(setting: Setting) -> None:
    with_factor = problem_of(setting, replace(BASELINE, lsq_scaling=True)).loss
    assert {site for site, _ in with_factor.sharing} == set(SITES)
    assert problem_of(setting).loss.sharing == ()


@pytest.mark.parametrize("minibatch", [24, 5, 9])
def test_minibatches_are_whole_contrastive_batches(setting: Setting, minibatch: int) -> None:
    with pytest.raises(UserError, match=rf"baseline\.minibatch \({minibatch}\) must be a multiple"):
        problem_of(setting, replace(BASELINE, minibatch=minibatch))


@pytest.mark.parametrize(
    ("config", "search", "budget", "message"),
    [
        (replace(BASELINE, optimizer="lbfg"), SEARCH, 500, r"unknown baseline\.optimizer 'lbfg'"),
        (BASELINE, SEARCH, 59, "a budget of 59 candidate-images is below the 60 of two evaluations"),
        (
            BASELINE,
            replace(SEARCH, fitness="kl+local"),
            500,
            "'local' is known to the block-wise",
        ),
        (BASELINE, replace(SEARCH, sites=("head/weight",)), 500, "name no site of the network's blocks"),
        (BASELINE, replace(SEARCH, holdout=0.1), 500, "leaves no whole batch"),
    ],
)
def test_what_cannot_descend_is_refused(
    setting: Setting, config: BaselineConfig, search: SearchConfig, budget: int, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        problem_of(setting, config, budget, search=search)
