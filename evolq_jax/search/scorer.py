"""Scoring candidates at a place of the network, and what that has cost."""

from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from evolq_jax.devices.layout import Layout
from evolq_jax.devices.mesh import fetch, replicate
from evolq_jax.network.parts import ModelParts
from evolq_jax.network.point import Quantized
from evolq_jax.objective.scoring import Scoring
from evolq_jax.quant.qparams import QParams
from evolq_jax.quant.spec import Specs
from evolq_jax.search import programs
from evolq_jax.typing import Array


class Score(Protocol):
    """Fitness [P] of candidates on the images searched on (part 0), or on those held out (1)."""

    def __call__(self, part: int, candidates: QParams, num_images: int | None = None, /) -> Array:
        """On the first `num_images`; None: on all of the part."""
        ...


class Scorer:
    """What is the same for all candidates of a search: the network's functions, and what it imitates.

    Attributes:
      evaluations: candidates scored so far.
      block_images: images through one block so far; others add what they spend.
    """

    def __init__(
        self,
        parts: ModelParts,
        specs: Specs,
        wanted: tuple[Array, Array | None],
        num_searched: int,
        temperature: float,
        mesh: Mesh | None,
        layout: Layout | None,
    ) -> None:
        """`wanted` are the teacher's logits [B, C] and features; the first `num_searched` are part 0."""
        self.parts, self.specs, self.mesh, self.layout = parts, specs, mesh, layout
        self.temperature = np.float32(temperature)
        self.evaluations = self.block_images = 0
        teacher, features = wanted
        self.teachers = replicate(mesh, jnp.split(teacher, [num_searched]))
        halves = (None, None) if features is None else jnp.split(features, [num_searched])
        self.features = replicate(mesh, halves)

    def on(
        self,
        network: Quantized,
        number: int,
        num_blocks: int,
        inputs: list[Array],
        block: int,
        scorings: tuple[Scoring, Scoring],
    ) -> Score:
        """How candidates for a few blocks of segment `number` are scored; counts what it costs."""
        index, targets = np.int32(block), dict[int, Array]()

        def score(part: int, candidates: QParams, num_images: int | None = None) -> Array:
            scoring = scorings[part]
            size, all_images = jax.tree.leaves(candidates)[0].shape[0], len(self.teachers[part])
            num_images = num_images or all_images
            if scoring.has_local and part not in targets:
                settings = self.parts, scoring.image_chunk, number, num_blocks
                targets[part] = programs.float_blocks(
                    *settings, network.params, index, inputs[part], self.layout
                )
                self.block_images += all_images * num_blocks
            self.evaluations += size
            blocks_run = scoring.blocks_run(self.parts, number, block, num_blocks)
            self.block_images += size * num_images * blocks_run
            fitness = programs.score(
                self.parts,
                self.specs,
                scoring,
                number,
                network,
                replicate(self.mesh, candidates),
                index,
                inputs[part],
                self.teachers[part],
                self.temperature,
                targets.get(part),
                self.features[part] if scoring.features_weight else None,
                num_images,
                self.layout,
            )
            return fetch(self.mesh, fitness)

        return score
