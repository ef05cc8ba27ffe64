"""What of a search moves, and what it says of itself: generations, visits, its end."""

from typing import NamedTuple

import numpy as np

from evolq_jax.network.parts import num_blocks
from evolq_jax.quant.qparams import QParams
from evolq_jax.search.budget import candidate_images
from evolq_jax.search.problem import Place, Problem
from evolq_jax.typing import Array


class State(NamedTuple):
    """Where a search stands between two visits: beside the problem and its data all that it needs to go on.

    A pytree of arrays and numbers. A visit's key is folded from `key` and the visit's number, and strategies
    begin anew at each visit, so their states are not held.
    """

    qparams: QParams
    key: Array
    fitness: np.ndarray  # [], at `qparams`, on the images searched on; infinite before the first visit
    held_out_fitness: np.ndarray  # []
    # By block of the whole network, NaN where unknown: one entry, or one for each block visited where a
    # block's own output counts.
    first_fitness: np.ndarray  # [blocks]
    last_fitness: np.ndarray  # [blocks]
    noise_sum: float = 0.0  # of the fitness's standard deviations, one of each visit that measured it
    noise_count: int = 0
    visits: int = 0
    evaluations: int = 0  # candidates scored
    kept: int = 0  # moves
    block_images: int = 0  # what was spent: images through one block
    seconds: float = 0.0

    @property
    def number(self) -> int:
        """Grows from each state that is saved to the next."""
        return self.visits

    def spend(self, *, block_images: int, evaluations: int = 0) -> "State":
        """After so much work."""
        return self._replace(
            block_images=self.block_images + block_images, evaluations=self.evaluations + evaluations
        )


def init(problem: Problem, qparams: QParams, key: Array) -> State:
    """Before the first visit.

    Args:
      problem: what is searched.
      qparams: where to start.
      key: PRNG key; consumed.
    """
    unknown = np.asarray(np.inf, np.float32)
    nothing = np.full(num_blocks(problem.runner.parts), np.nan, np.float32)
    return State(
        qparams=qparams,
        key=key,
        fitness=unknown,
        held_out_fitness=unknown,
        first_fitness=nothing,
        last_fitness=nothing,
    )


class Generation(NamedTuple):
    """What one generation did; a line of `log.jsonl`."""

    pass_number: int
    segment: str
    block: int
    generation: int
    evaluations: int  # so far, in the whole search
    fitness: float  # best of this generation
    best_fitness: float  # best so far at this block
    seconds: float  # since the search began
    candidate_images: float  # spent so far (search/budget.py)


class Visit(NamedTuple):
    """A visit has ended, and the search stands here."""

    place: Place
    state: State


class SearchEnd(NamedTuple):
    """A search is over: the scales found, and the fitness they started and ended with.

    Where the fitness has a block's own output in it, both are means over the blocks, each as it was at its
    block's first and last visit.
    """

    qparams: QParams
    start_fitness: float
    fitness: float
    evaluations: int
    kept: int  # moves, of as many visits
    visits: int
    seconds: float
    candidate_images: float  # spent in all (search/budget.py)
    noise: float | None  # mean standard deviation of the fitness among equals; None: not measured


def end_of(problem: Problem, state: State) -> SearchEnd:
    """What a search has found so far."""
    return SearchEnd(
        qparams=state.qparams,
        start_fitness=float(np.nanmean(state.first_fitness)),
        fitness=float(np.nanmean(state.last_fitness)),
        evaluations=state.evaluations,
        kept=state.kept,
        visits=state.visits,
        seconds=state.seconds,
        candidate_images=spent(problem, state),
        noise=state.noise_sum / state.noise_count if state.noise_count else None,
    )


def spent(problem: Problem, state: State) -> float:
    """Candidate-images so far."""
    return candidate_images(problem.runner.parts, state.block_images)


def is_spent(problem: Problem, state: State) -> bool:
    """Whether the budget is; at least one block is visited."""
    budget = problem.config.budget
    return budget is not None and state.visits > 0 and spent(problem, state) >= budget


def next_place(problem: Problem, state: State) -> Place | None:
    """Where the next visit is; None: the passes are over, or the budget is spent."""
    place, passes = problem.place(state.visits), problem.passes
    if is_spent(problem, state) or (passes is not None and place.pass_number >= passes):
        return None
    return place
