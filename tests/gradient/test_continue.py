"""A descent that goes on from a state ends, bit for bit, as the one that was not interrupted."""

from dataclasses import replace

import pytest

from tests.gradient.setting import (
    BASELINE,
    HELD_OUT,
    SEARCH,
    data_of,
    descended,
    listened,
    problem_of,
    same_bits,
    without_seconds,
)
from tests.search.setting import BATCH, Setting
from tests.search.test_continue import copied

CASES = {
    "adam, minibatches": (replace(BASELINE, minibatch=BATCH), SEARCH, 300),
    "lbfgs, held out": (replace(BASELINE, optimizer="lbfgs", evaluate_every=1), HELD_OUT, 1500),
    "spsa": (replace(BASELINE, gradient="spsa", optimizer="sgd"), SEARCH, 200),
}


@pytest.mark.parametrize("case", CASES)
def test_going_on_from_every_state(setting: Setting, case: str) -> None:
    config, search, budget = CASES[case]
    told = descended(setting, config, budget, search=search, seed=1)
    whole, problem = without_seconds(told), problem_of(setting, config, budget, search=search)
    assert [state.steps for state in whole.states] == list(range(whole.result.steps + 1))
    assert whole.result.steps >= 3
    for number, state in enumerate(told.states):
        rest = listened(problem, data_of(setting), copied(state))
        assert rest.result.seconds >= state.seconds
        rest = without_seconds(rest)
        assert rest.evaluations == [
            record for record in whole.evaluations if record.candidate_images > state.evaluated
        ]
        assert len(rest.states) == len(whole.states) - number - 1
        for found, wanted in zip(rest.states, whole.states[number + 1 :], strict=True):
            assert same_bits(found, wanted)
        assert same_bits(rest.result, whole.result)
