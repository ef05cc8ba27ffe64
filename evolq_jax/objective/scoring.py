"""What a search measures of candidates, and how much it holds at once."""

from dataclasses import dataclass, replace

from evolq_jax.network.parts import ModelParts, blocks_run
from evolq_jax.objective.fitness import FEATURES, LOCAL, Term, logits_fitness, parse_fitness, weight_of
from evolq_jax.typing import Array, FitnessFn


@dataclass(frozen=True)
class Scoring:
    """Static settings of an evaluation: what is measured, and how much is held in memory at once.

    `fitness` is a sum of terms (`objective.fitness.parse_fitness`); `functions` are a user's terms, `top_k`
    belongs to `top_k_kl`. `batch_size` is the contrastive batch; `image_chunk` times `population_chunk`
    images run at once (this changes nothing but rounding).
    """

    fitness: str = "info_nce"
    batch_size: int = 100
    image_chunk: int = 10
    population_chunk: int = 1
    top_k: int = 10
    functions: tuple[FitnessFn, ...] = ()

    @property
    def terms(self) -> tuple[Term, ...]:
        """Of the sum."""
        return parse_fitness(self.fitness, self.functions)

    @property
    def local_weight(self) -> float:
        """Of the block's own output error; 0 where it plays no part."""
        return weight_of(LOCAL, self.terms)

    @property
    def features_weight(self) -> float:
        """Of the error of the features that the classifiers read; 0 where it plays no part."""
        return weight_of(FEATURES, self.terms)

    @property
    def has_local(self) -> bool:
        """Whether fitness depends on the block, so that it is unknown when another is visited."""
        return self.local_weight > 0

    def on_logits(self, temperature: Array | float) -> FitnessFn | None:
        """What of the fitness needs logits; None: nothing."""
        return logits_fitness(self.terms, temperature, self.top_k, self.functions)

    @property
    def runs_all(self) -> bool:
        """Whether blocks after the searched one run."""
        return self.on_logits(1.0) is not None or self.features_weight > 0

    @property
    def whole(self) -> "Scoring":
        """The same without a block's own output: what tells two networks apart. By KL if nothing is left."""
        kept = [f"{term.weight!r}*{term.name}" for term in self.terms if term.name != LOCAL]
        return replace(self, fitness="+".join(kept) or "kl") if self.has_local else self

    def blocks_run(self, parts: ModelParts, segment_number: int, block: int, size: int) -> int:
        """Blocks that a candidate for `size` blocks from `block` on runs."""
        return blocks_run(parts, segment_number, block) if self.runs_all else size
