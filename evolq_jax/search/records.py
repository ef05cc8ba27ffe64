"""What a search says of itself: its generations, where it stands between two visits, its result."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from evolq_jax.network.parts import ModelParts, num_blocks
from evolq_jax.quant.qparams import QParams
from evolq_jax.typing import Array


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


class Proposal(NamedTuple):
    """Other scales for the whole network, which a search may take before its first visit."""

    qparams: QParams
    block_images: int  # what finding them has cost: images through one block


class Position(NamedTuple):
    """Where a search stands between two visits: with the search's arguments, all that it needs to go on.

    A visit's key is folded from the search's key and the visit's number, and strategies begin anew at each
    visit, so neither is held.
    """

    qparams: QParams
    fitness: Array  # [], at `qparams`, on the images searched on; infinite before the first visit
    held_out_fitness: Array  # []
    # By block of the whole network, NaN where unknown: one entry, or one for each block visited where a
    # block's own output counts.
    first_fitness: np.ndarray  # [blocks]
    last_fitness: np.ndarray  # [blocks]
    noise_sum: float = 0.0  # of the fitness's standard deviations, one of each visit that measured it
    noise_count: int = 0
    visits: int = 0
    evaluations: int = 0
    kept: int = 0
    block_images: int = 0  # what was spent: images through one block
    seconds: float = 0.0

    @property
    def number(self) -> int:
        """Which of the search's positions this is."""
        return self.visits

    @staticmethod
    def first(parts: ModelParts, qparams: QParams) -> "Position":
        """Before the first visit."""
        unknown = jnp.asarray(jnp.inf, jnp.float32)
        nothing = np.full(num_blocks(parts), np.nan, np.float32)
        return Position(qparams, unknown, unknown, nothing, nothing)


class SearchResult(NamedTuple):
    """The scales found, and the fitness they started and ended with.

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
