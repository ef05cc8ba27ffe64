"""What a search spends, in candidate-images: one image through one forward pass of the whole network.

Gradient baselines have the same unit, so the methods can be compared. A part of the network counts by its
share of the blocks of all segments. Patch embedding, what leads into later segments, and the head count as
nothing. These things count:

- a candidate: the blocks from the searched one on, for all images that score it, held out or not;
- the cache of the blocks' inputs, once per pass: all blocks, for all calibration images;
- the float block's output, if the fitness asks for it: one block, once per visit.

Calibration and the teacher are the same for all methods, so they do not count.
"""

from evolq_jax.network.parts import ModelParts, num_blocks
from evolq_jax.search.algorithms.menu import find_algorithm
from evolq_jax.search.config import SearchConfig
from evolq_jax.search.halving import num_scored


def candidate_images(parts: ModelParts, block_images: int) -> float:
    """Converts images through one block into images through the whole network."""
    return round(block_images / num_blocks(parts), 3)


def num_evaluations(config: SearchConfig, num_visits: int, coordinates: int = 0) -> int:
    """Candidates that all passes evaluate at most (moves that already lost need no held-out score).

    `num_visits` are those of a pass; `coordinates`, of all its visits together, count for grids only.
    """
    visits = (config.passes + bool(config.grid_start)) * num_visits
    searched, held_out = config.objectives()
    starts = visits if config.rescore_start or searched.is_local else 1
    decisions = visits + (visits if held_out.is_local else 1) if config.holdout else 0
    each = coordinates if find_algorithm(config.algorithm).sweeps else num_visits
    noise = visits * num_noise_copies(config) if config.min_gain else 0
    own = config.passes * config.generations * each * num_scored(config.halving, config.num_candidates)
    grid = config.grid_start * coordinates * num_scored(config.halving, config.population_size)
    return own + grid + starts + decisions + noise


def num_noise_copies(config: SearchConfig) -> int:
    """Candidates that the noise is measured on: a population, so that it takes no new program."""
    return max(config.num_candidates, 4)
