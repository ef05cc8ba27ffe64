"""The block-wise search: passes over the blocks, last to first, a few generations at each."""

from collections.abc import Iterator

from evolq_jax.devices.mesh import replicate
from evolq_jax.network.point import at_qparams
from evolq_jax.search.ahead import compile_search
from evolq_jax.search.problem import Data, Problem
from evolq_jax.search.state import Generation, SearchEnd, State, Visit, end_of, is_spent, next_place
from evolq_jax.search.visit import Pass, begin_pass, visit


def run(problem: Problem, data: Data, state: State) -> Iterator[Generation | Visit | SearchEnd]:
    """Improves the scales block by block, last block first, and tells of it as it goes.

    No step makes the fitness worse, neither on the images that candidates are scored on nor, with a
    `holdout`, on those held out. The evaluation images play no part.

    A search that goes on from the state of a visit ends with the same result, bit for bit, on the same
    hardware. One program of each kind per segment serves all its blocks.

    Args:
      problem: what is searched (`make_problem`).
      data: its arrays (`make_data`).
      state: where to begin (`init`), or where to go on (`Visit.state`).

    Yields:
      Every generation; after every visit the state; at the end what was found.
    """
    runner = problem.runner
    compile_search(problem, data, state)
    network = at_qparams(runner.specs, data.params, replicate(runner.mesh, state.qparams))
    at: Pass | None = None
    while (place := next_place(problem, state)) is not None:
        if at is None or problem.begins_pass(state.visits):
            at = None  # lets go of the inputs of the pass before
            state, at = begin_pass(problem, data, state, network)
            if is_spent(problem, state):
                break
        state, at = yield from visit(problem, data, state, at)
        network = at.network
        yield Visit(place, state)
    yield end_of(problem, state)


def search(problem: Problem, data: Data, state: State) -> SearchEnd:
    """What `run` ends with."""
    *_, end = run(problem, data, state)
    assert isinstance(end, SearchEnd)
    return end
