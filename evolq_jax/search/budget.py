"""What a search spends, in candidate-images: one image through one forward pass of the whole network.

The unit is that of the gradient baselines, so that methods can be held against each other. What runs only
a part of the network counts by its share of the blocks (of all segments; patch embedding, what leads into
later segments and the head count as nothing):

- a candidate: the blocks from the searched one on, on the images it is scored on, held out or not;
- filling the cache of the blocks' inputs, once a pass: all blocks, on all calibration images;
- the float block's output, where the fitness asks for it: one block, once a visit;
- a proposal: what finding it has cost, by its own account, and a cache for it.

Calibration and the teacher are the same for all methods and are not counted.
"""

from evolq_jax.network.parts import ModelParts, num_blocks


def candidate_images(parts: ModelParts, block_images: int) -> float:
    """From images through one block to images through the network."""
    return round(block_images / num_blocks(parts), 3)
