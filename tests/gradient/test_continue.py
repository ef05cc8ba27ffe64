"""A descent that goes on from a position ends, bit for bit, as the one that was not interrupted."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evolq_jax.gradient.descend import descend
from evolq_jax.gradient.records import Evaluation, Position
from tests.gradient.test_descend import BASELINE, SEARCH, data_of, problem_of
from tests.search.setting import BATCH, Setting

HELD_OUT = replace(SEARCH, holdout=0.5)
CASES = {
    "adam, minibatches": (replace(BASELINE, minibatch=BATCH), SEARCH, 300),
    "lbfgs, held out": (replace(BASELINE, optimizer="lbfgs", evaluate_every=1), HELD_OUT, 1500),
    "spsa": (replace(BASELINE, gradient="spsa", optimizer="sgd"), SEARCH, 200),
}


@pytest.mark.parametrize("case", CASES)
def test_going_on_from_any_step(setting: Setting, case: str) -> None:
    baseline, search, budget = CASES[case]
    args = problem_of(setting, baseline), search, data_of(setting), budget, jax.random.key(1)
    positions: list[Position] = []
    log: list[Evaluation] = []

    def descend_from(position: Position | None) -> Any:
        found = descend(*args, lambda record, _: log.append(record), positions.append, position)
        return found, [record._replace(seconds=0) for record in log]

    whole, records = descend_from(None)
    steps = [position.step for position in positions]
    assert steps == list(range(whole.steps + 1))
    assert whole.steps >= 3
    chosen = np.random.default_rng(0).choice(whole.steps, 2, replace=False)
    for position in [positions[step] for step in (*chosen, whole.steps)]:
        positions.clear()
        log.clear()
        copied = jax.tree.map(
            lambda leaf: jnp.asarray(np.asarray(leaf)) if isinstance(leaf, jax.Array) else leaf, position
        )
        found, rest = descend_from(copied)
        assert [place.step for place in positions] == steps[position.step + 1 :]
        assert rest == [record for record in records if record.candidate_images > position.evaluated]
        assert jax.tree.all(jax.tree.map(np.array_equal, found.qparams, whole.qparams))
        assert found._replace(qparams={}, seconds=0) == whole._replace(qparams={}, seconds=0)
        assert found.seconds >= position.seconds
