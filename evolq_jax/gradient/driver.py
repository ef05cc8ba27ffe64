"""The loop of a descent: steps over the scales of all blocks at once, with evaluations in between."""

import logging
import math
import time
from collections.abc import Iterator

from evolq_jax.errors import UserError
from evolq_jax.gradient.problem import Data, Problem
from evolq_jax.gradient.state import DescentEnd, Evaluation, State, Step, can_step, end_of, is_due
from evolq_jax.gradient.step import evaluate, step

_log = logging.getLogger(__name__)


def run(problem: Problem, data: Data, state: State) -> Iterator[Evaluation | Step | DescentEnd]:
    """Improves the scales of all blocks at once until the budget is spent, and tells of it as it goes.

    The result is the best point that was evaluated. A point is better than another if its fitness on the
    images searched on is lower. If images are held out, its fitness on those must be lower too.

    A descent that goes on from the state of a step ends with the same result, bit for bit, on the same
    hardware. You can stop listening at any time: nothing is left to close.

    Args:
      problem: what descends (`make_problem`).
      data: its arrays.
      state: where to begin (`init`), or where to go on (`Step.state`).

    Raises:
      UserError: the fitness at the start is no finite number.

    Yields:
      An `Evaluation` whenever the quantized network was scored. A `Step` after the first evaluation, and
      after each step. The `DescentEnd` last.
    """
    began = time.monotonic() - state.seconds

    def now(state: State) -> State:
        return state._replace(seconds=time.monotonic() - began)

    def evaluated(state: State) -> tuple[State, Evaluation]:
        state, record = evaluate(problem, data, state)
        state = now(state)
        return state, record._replace(seconds=round(state.seconds, 3))

    if not state.spent:
        state, record = evaluated(state)
        if not math.isfinite(record.fitness):
            raise UserError(
                f"the fitness of the quantized network is {record.fitness} where the descent starts: look at "
                "its calibration (`evolq evaluate CONFIG`), or take another search.fitness"
            )
        yield record
        yield Step(state)
    while can_step(problem, state):
        state = step(problem, data, state)
        if is_due(problem, state):
            state, record = evaluated(state)
            yield record
            if not math.isfinite(record.fitness):
                _log.warning(
                    "step %d of %s has a fitness of %s: the descent stops here; a smaller "
                    "--baseline.learning-rate keeps it finite",
                    *(state.steps, problem.config.optimizer, record.fitness),
                )
                break
        state = now(state)
        yield Step(state)
    yield end_of(state)


def descend(problem: Problem, data: Data, state: State) -> DescentEnd:
    """What `run` ends with."""
    *_, end = run(problem, data, state)
    assert isinstance(end, DescentEnd)
    return end
