"""The objective: one object that search, gradients and landscapes share.

In go the outputs of a quantized network (`Outputs`) and those of the float network (`Teacher`). Out comes the
fitness.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from evolq_jax.errors import UserError
from evolq_jax.network.parts import ModelParts
from evolq_jax.network.reading import Reading
from evolq_jax.network.run import with_features
from evolq_jax.objective.terms import TERMS, Reads, Term, Weighted, parse_fitness
from evolq_jax.typing import Array, FitnessFn


class Outputs(NamedTuple):
    """The outputs of a quantized network on B images, as far as an objective reads them."""

    logits: Array | None = None  # [B, C]
    features: Array | None = None  # [B, ...]
    own_errors: tuple[Array, ...] = ()  # of a block's own output, [B] each: see `Objective.own_errors`

    def rows(self, index: Array | slice) -> "Outputs":
        """Those of some images."""
        return jax.tree.map(lambda leaf: leaf[index], self)


class Teacher(NamedTuple):
    """The outputs of the float network on B images. None: no objective reads them."""

    logits: Array  # [B, C]
    features: Array | None = None  # [B, ...]
    own_output: Array | None = None  # of the float block, on the quantized block's input [B, ...]

    def rows(self, index: Array | slice) -> "Teacher":
        """That of some images."""
        return jax.tree.map(lambda leaf: leaf[index], self)


@dataclass(frozen=True)
class Objective:
    """How far a quantized network is from the float network: a sum of terms. Lower is better.

    It is static and hashable, so it can be an argument of compiled programs.

    Attributes:
      terms: the terms of the sum.
      batch_size: images that terms of logits see at once. The fitness is the mean over such batches. None:
        all images are one batch.
      top_k: the number of classes that `top_k_kl` tells apart.
    """

    terms: tuple[Weighted, ...]
    batch_size: int | None = None
    top_k: int = 10

    @property
    def name(self) -> str:
        """The fitness as a config writes it."""
        return "+".join(f"{weight:g}*{term.name}".removeprefix("1*") for weight, term in self.terms)

    def reads(self, what: Reads) -> bool:
        """Whether a term reads this."""
        return any(term.reads == what for _, term in self.terms)

    @property
    def is_local(self) -> bool:
        """Whether the fitness depends on the block. Then it is unknown when another block is visited."""
        return self.reads("own_output")

    @property
    def runs_all(self) -> bool:
        """Whether a term needs what comes after the searched block."""
        return self.reads("logits") or self.reads("features")

    @property
    def whole(self) -> "Objective":
        """The objective without a block's own output, to compare whole networks. KL, if nothing is left."""
        kept = tuple(weighted for weighted in self.terms if weighted.term.reads != "own_output")
        return replace(self, terms=kept or (Weighted(1.0, TERMS["kl"]),)) if self.is_local else self

    def check_whole(self) -> None:
        """Checks that the objective can serve all blocks at once.

        Raises:
          UserError: a term is about one block.
        """
        for _, term in self.terms:
            if term.reads == "own_output":
                raise UserError(
                    f"fitness '{self.name}': '{term.name}' is known to the block-wise search only"
                )

    def outputs(self, parts: ModelParts, reading: Reading, run: Callable[[Reading], Array]) -> Outputs:
        """The logits of `run(reading)` and, if a term reads them, the features on the way."""
        if not self.reads("features"):
            return Outputs(run(reading))
        logits, features = with_features(parts, reading, run)
        return Outputs(logits, features)

    def own_errors(self, output: Array, wanted: Array) -> tuple[Array, ...]:
        """The errors [B] of a block's own output [B, ...] against the float block's, one for each term.

        Only these are kept. No device holds the outputs for all images and candidates.
        """
        own = (term for _, term in self.terms if term.reads == "own_output")
        return tuple(_by_image(term, output, wanted) for term in own)

    def __call__(self, outputs: Outputs, teacher: Teacher, temperature: Array | float = 3.0) -> Array:
        """The fitness: a scalar.

        Args:
          outputs: those of the quantized network on B images; B is a multiple of `batch_size`.
          teacher: those of the float network on the same images.
          temperature: of infoNCE (may be traced).

        Raises:
          UserError: a term's function gives an array of another shape than it should.
          ValueError: an output that a term reads is missing.
        """
        total = self._of_logits(outputs, teacher, temperature)
        for weight, term in self.terms:
            if term.reads == "features":
                if outputs.features is None or teacher.features is None:
                    raise ValueError(f"the fitness '{self.name}' needs the teacher's features")
                total = total + weight * _by_image(term, outputs.features, teacher.features).mean(-1)
        own = [weight for weight, term in self.terms if term.reads == "own_output"]
        for weight, errors in zip(own, outputs.own_errors, strict=True):
            total = total + weight * errors.mean(-1)
        return total

    def _of_logits(self, outputs: Outputs, teacher: Teacher, temperature: Array | float) -> Array:
        """The sum of the terms that read logits; 0 if there is none."""
        settings = {"temperature": temperature, "top_k": self.top_k}
        chosen = [
            (weight, partial(_scalar, term, {name: settings[name] for name in term.takes}))
            for weight, term in self.terms
            if term.reads == "logits"
        ]
        if not chosen:
            return jnp.zeros(())
        if outputs.logits is None:
            raise ValueError(f"the fitness '{self.name}' needs logits")

        def of_batch(student: Array, teacher: Array) -> Array:
            if len(chosen) == 1 and chosen[0][0] == 1:
                return chosen[0][1](student, teacher)
            return jnp.sum(jnp.stack([weight * function(student, teacher) for weight, function in chosen]))

        if self.batch_size is None:
            return of_batch(outputs.logits, teacher.logits)
        shape = (-1, self.batch_size, outputs.logits.shape[-1])
        batches = outputs.logits.reshape(shape), teacher.logits.reshape(shape)
        return jnp.mean(jax.vmap(of_batch)(*batches))


def _scalar(term: Term, settings: dict[str, Any], student: Array, teacher: Array) -> Array:
    value = jnp.asarray(term.function(student, teacher, **settings))
    if value.shape:
        raise UserError(f"fitness '{term.name}' must give one number, not an array of shape {value.shape}")
    return value


def _by_image(term: Term, student: Array, teacher: Array) -> Array:
    errors = term.function(student, teacher)
    if errors.shape != student.shape[:1]:
        raise UserError(
            f"fitness '{term.name}' must give one number for each of {len(student)} images, not an array of "
            f"shape {errors.shape}"
        )
    return errors


def make_objective(
    fitness: str | Term | FitnessFn,
    more: Sequence[Term | FitnessFn] = (),
    *,
    batch_size: int | None = None,
    top_k: int = 10,
) -> Objective:
    """The objective for the fitness of a config.

    Args:
      fitness: a name, a sum of names, a term or a function; see `parse_fitness`.
      more: terms and functions that a sum may name beside ours.
      batch_size: see `Objective`.
      top_k: see `Objective`.

    Raises:
      UserError: as `parse_fitness`.
    """
    return Objective(parse_fitness(fitness, more), batch_size, top_k)
