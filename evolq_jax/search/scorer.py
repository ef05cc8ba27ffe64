"""Scoring candidates at a place of the network, and what that has cost."""

from typing import Protocol

import jax
import jax.numpy as jnp

from evolq_jax.devices.mesh import fetch, replicate
from evolq_jax.network.parts import blocks_run
from evolq_jax.network.point import Quantized
from evolq_jax.objective.objective import Objective, Teacher
from evolq_jax.quant.qparams import QParams
from evolq_jax.search import programs
from evolq_jax.search.population import Context
from evolq_jax.search.problem import Runner
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

    def __init__(self, runner: Runner, teacher: Teacher, *, num_searched: int, temperature: float) -> None:
        """The first `num_searched` images of the teacher's [B, ...] are part 0."""
        self.runner = runner
        self.temperature = jnp.float32(temperature)
        self.evaluations = self.block_images = 0
        split = [num_searched]
        halves = (None, None) if teacher.features is None else jnp.split(teacher.features, split)
        parts = zip(jnp.split(teacher.logits, split), halves, strict=True)
        self.teachers = replicate(runner.mesh, [Teacher(logits, features) for logits, features in parts])

    def on(
        self,
        network: Quantized,
        inputs: list[Array],
        objectives: tuple[Objective, Objective],
        *,
        number: int,
        num_blocks: int,
        block: int,
    ) -> Score:
        """How candidates for a few blocks of segment `number` are scored; counts what it costs."""
        runner, index, targets = self.runner, jnp.asarray(block, jnp.int32), dict[int, Array]()

        def score(part: int, candidates: QParams, num_images: int | None = None) -> Array:
            objective, teacher = objectives[part], self.teachers[part]
            size, all_images = jax.tree.leaves(candidates)[0].shape[0], len(teacher.logits)
            num_images = num_images or all_images
            if objective.is_local and part not in targets:
                targets[part] = programs.float_blocks(
                    runner, network.params, inputs[part], index, number=number, size=num_blocks
                )
                self.block_images += all_images * num_blocks
            self.evaluations += size
            ran = blocks_run(runner.parts, number, block) if objective.runs_all else num_blocks
            self.block_images += size * num_images * ran
            teacher = Teacher(
                teacher.logits,
                teacher.features if objective.reads("features") else None,
                targets.get(part),
            )
            context = Context(network, index, inputs[part], teacher, self.temperature)
            candidates = replicate(runner.mesh, candidates)
            fitness = programs.score(
                runner, objective, context, candidates, number=number, num_images=num_images
            )
            return fetch(runner.mesh, fitness)

        return score
