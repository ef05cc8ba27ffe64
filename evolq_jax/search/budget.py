"""What a search spends, in candidate-images: one image through one forward pass of the whole network.

Gradient baselines have the same unit, so the methods can be compared. A part of the network counts by its
share of the blocks of all segments. Patch embedding, what leads into later segments, and the head count as
nothing. These things count:

- a candidate: the blocks from the searched one on, for all images that score it, held out or not;
- the cache of the blocks' inputs, once per pass: all blocks, for all calibration images;
- the float block's output, if the fitness asks for it: one block, once per visit;
- a proposal: the cost of finding it, by its own account, and a cache for it.

Calibration and the teacher are the same for all methods, so they do not count.
"""

from evolq_jax.network.parts import ModelParts, num_blocks


def candidate_images(parts: ModelParts, block_images: int) -> float:
    """Converts images through one block into images through the whole network."""
    return round(block_images / num_blocks(parts), 3)
