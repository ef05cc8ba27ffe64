"""The search's settings."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, get_args

import jax
from evosax.algorithms.base import EvolutionaryAlgorithm
from jax.sharding import Mesh

from evolq_jax.devices.placement import Placement
from evolq_jax.errors import UserError
from evolq_jax.named import check_names
from evolq_jax.objective.objective import Objective, make_objective
from evolq_jax.objective.terms import TERMS, Term, as_term
from evolq_jax.quant.spec import Specs
from evolq_jax.search.algorithms.base import Algorithm
from evolq_jax.search.algorithms.evolq import Mutation, Replacement
from evolq_jax.search.algorithms.menu import ALGORITHMS, find_algorithm
from evolq_jax.search.algorithms.one_plus_lambda import StepSize
from evolq_jax.search.algorithms.strategy import Strategy
from evolq_jax.search.space import Parametrization, SearchSpace, make_space
from evolq_jax.typing import FitnessFn

# How blocks' inputs are kept, in the order in which memory is saved.
PrefixKind = Literal["float32", "bfloat16", "recompute"]
PREFIX_KINDS: tuple[PrefixKind, ...] = get_args(PrefixKind)
# `qkv` and `proj` of every attention module; LeViT's subsampling attention has `q` and `kv` apart.
ATTENTION_WEIGHTS = ("*/attn*/[qk]*/weight", "*/attn*/proj/weight")


TeacherKind = Literal["float", "integer_layer_norm"]
BlockLoop = Literal["shared", "counted"]
COUNTED_FROM = 20  # generations at each block: below, compiling takes longer than is saved


MAX_CANDIDATES = 2**20  # of one generation: their scales are held at once


@dataclass(frozen=True)
class SearchConfig:
    """The search's settings; the defaults are the best honest setting found so far (docs/results.md).

    Attributes:
      algorithm: `EvolQ` (the paper's tournament), `OnePlusLambda` (elitist, with an adaptive step size),
        `Grid` (coarse to fine along one coordinate after the other) or any of evosax by its class name.
        Python may pass a class like evosax's, or an `Algorithm`.
      sites: patterns of the sites whose scales are searched, of those inside blocks; `*`: weights and
        activations alike.
      parametrization: `raw` scales, `log` ratios to the start, one log ratio per tensor (`log_per_tensor`)
        or per group of channels (`log_per_group`). Channels of ptf and pow2 activations always move together.
      group_size: channels of one group; the width of a head makes the groups of `qkv` its heads.
      zero_points: move the zero points of the searched sites too, as integers; needs a log parametrization.
      blocks_per_visit: neighbouring blocks searched at once; a segment's last visit may meet some again.
      passes: times over all blocks; plays no part where there is a budget.
      budget: candidate-images (`evolq_jax.search.budget` counts them): passes go on until the end of the
        generation that spends it. None: `passes` decide.
      grid_start: sweeps of `Grid` at each block in a pass of its own before the others; 0: no such pass.
      generations: generations at each visit of a block (the paper's cycles); of `Grid`, sweeps over all its
        coordinates.
      population_size: candidates evaluated in each generation.
      restarts: independent runs of the algorithm at each visit, from the same start, scored as one
        population of so many times its size; the best of all counts.
      epsilon: half width of EvolQ's uniform mutation; for log parametrizations the unit of a step.
      mutation: EvolQ: `absolute`, or `relative` to each scale.
      pool_size: EvolQ: members kept; the released code has 15.
      tournament_size: EvolQ: members drawn for each parent; the released code has 10.
      replacement: EvolQ: which members leave the pool, the `worst` or the `oldest`.
      density: OnePlusLambda: probability that a child moves a coordinate.
      antithetic: OnePlusLambda: children in pairs on opposite sides of their parent.
      step_size: OnePlusLambda: adapted by the share of children that are better (`one_fifth`), or by each
        child's own, which it leaves as a parent (`self_adaptive`).
      fitness: `info_nce`, `mse`, `cosine`, `kl`, `centred_cosine` or `top_k_kl`, against the teacher's
        logits; `features`: what the classifiers read, against the teacher's; `local`: the searched block's
        own output against the float block's; or a sum, as in `kl + 0.5*features`. Minimised. Python may pass
        a pure function `(student [B, C], teacher [B, C]) -> scalar` of a contrastive batch's logits, or a
        `Term`.
      fitness_functions: functions and terms that a sum may name beside ours.
      holdout_fitness: what the images held out are scored by; None: by `fitness`.
      top_k: classes that `top_k_kl` tells apart, the teacher's most likely.
      temperature: of infoNCE.
      batch_size: contrastive batch of infoNCE: calibration images must be a multiple of it. None: 50, 100 if
        none are held out, or what fits the number of images.
      holdout: share of the calibration images that candidates are not scored on, but that decide whether
        a block's move is kept; in whole batches, from the end.
      halving: stages of successive halving: in each, about twice as many images and half as many candidates,
        in the last all images. 1: all candidates are scored on all images.
      min_gain: a move must improve the fitness by more than so many standard deviations of its noise, as
        measured at each visit by candidates that differ from the start in rounding only. 0: by anything.
      teacher: `float`, or `integer_layer_norm` (the released code's).
      rescore_start: evaluate a block's start anew at each visit, as released, though it is known.
      prefixes: how the inputs of all blocks are kept for a pass: `float32`; `bfloat16`, half the memory, but
        candidates are then judged on rounded inputs; `recompute`: not kept, each is computed at its visit.
      block_loop: the loop over the blocks from the searched one on. `shared`: one program serves all blocks.
        `counted`: whole populations are scored by a program for each block, which knows how often its loop
        runs; so an accelerator need not ask the host before each round. None: `counted` on accelerators where
        passes meet each block in 20 generations or more. It changes nothing but rounding.
      image_chunk: images run at once; None: chosen for the backend, on accelerators as memory allows.
      population_chunk: candidates run at once; None: likewise.
    """

    algorithm: str | Algorithm | type[EvolutionaryAlgorithm] = "SNES"
    sites: tuple[str, ...] = ("*",)
    parametrization: Parametrization = "log_per_tensor"
    group_size: int = 64
    zero_points: bool = False
    blocks_per_visit: int = 1
    passes: int = 1
    budget: int | None = None
    grid_start: int = 0
    generations: int = 2
    population_size: int = 6
    restarts: int = 1
    epsilon: float = 0.1
    mutation: Mutation = "relative"
    pool_size: int = 15
    tournament_size: int = 10
    replacement: Replacement = "worst"
    density: float = 1.0
    antithetic: bool = False
    step_size: StepSize = "one_fifth"
    fitness: str | Term | FitnessFn = "kl"
    fitness_functions: tuple[Term | FitnessFn, ...] = ()
    holdout_fitness: str | Term | FitnessFn | None = None
    top_k: int = 10
    temperature: float = 3.0
    batch_size: int | None = None
    holdout: float = 0.5
    halving: int = 1
    min_gain: float = 0.0
    teacher: TeacherKind = "float"
    rescore_start: bool = False
    prefixes: PrefixKind = "float32"
    block_loop: BlockLoop | None = None
    image_chunk: int | None = None
    population_chunk: int | None = None

    def __post_init__(self) -> None:
        """Makes records of what Python passes, and rejects sizes that mean nothing."""
        self._make_records()
        sizes = ["passes", "generations", "population_size", "pool_size", "tournament_size", "batch_size"]
        for name in (
            *sizes,
            "blocks_per_visit",
            "budget",
            "group_size",
            "top_k",
            "halving",
            "restarts",
            "image_chunk",
            "population_chunk",
        ):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"search.{name} must be at least 1, not {value}")
        for name in ("epsilon", "temperature"):
            if not getattr(self, name) > 0:
                raise UserError(f"search.{name} must be positive, not {getattr(self, name)}")
        for name in ("grid_start", "min_gain"):
            if not getattr(self, name) >= 0:
                raise UserError(f"search.{name} must not be negative, not {getattr(self, name)}")
        if self.num_candidates > MAX_CANDIDATES:
            raise UserError(
                f"search.population_size times search.restarts is {self.num_candidates:,}; at most "
                f"{MAX_CANDIDATES:,} candidates can be scored in one generation"
            )
        if self.prefixes not in PREFIX_KINDS:
            known = ", ".join(PREFIX_KINDS)
            raise UserError(f"search.prefixes must be one of {known}, not '{self.prefixes}'")
        if self.block_loop not in (None, *get_args(BlockLoop)):
            known = ", ".join(get_args(BlockLoop))
            raise UserError(f"search.block_loop must be one of {known}, not '{self.block_loop}'")
        if not 0 < self.density <= 1:
            raise UserError(f"search.density must be above 0 and at most 1, not {self.density}")
        if not 0 <= self.holdout < 1:
            raise UserError(f"search.holdout must be from 0 to below 1, not {self.holdout}")
        self._check_algorithm()

    def _make_records(self) -> None:
        """Functions become terms of a fitness, classes algorithms: whatever is no name has one."""
        terms: dict[str, Any] = {"fitness": self.fitness, "holdout_fitness": self.holdout_fitness}
        for name, given in terms.items():
            if given is not None and not isinstance(given, str):
                object.__setattr__(self, name, as_term(given))
                check_names((as_term(given),), TERMS, f"search.{name}")
        for given in self.fitness_functions:
            if not isinstance(given, Term) and not callable(given):
                raise UserError(
                    f"search.fitness_functions takes functions, not '{given}': search.fitness can name the "
                    "terms of evolq_jax and of plug-ins without it"
                )
        object.__setattr__(self, "fitness_functions", tuple(map(as_term, self.fitness_functions)))
        if not isinstance(self.algorithm, str):
            algorithm = find_algorithm(self.algorithm)
            object.__setattr__(self, "algorithm", algorithm)
            check_names((algorithm,), ALGORITHMS, "search.algorithm")

    def _check_algorithm(self) -> None:
        """EvolQ's mutations keep a log of zero (the start) at zero; evosax's steps are of size one.

        A name that is unknown is refused once a search is made.
        """
        raw = self.parametrization == "raw"
        known = isinstance(self.algorithm, Algorithm) or self.algorithm in ALGORITHMS
        if known:
            algorithm = find_algorithm(self.algorithm)
            if self.restarts > 1 and not algorithm.draws:
                raise UserError(
                    f"search.restarts must be 1 with search.algorithm '{algorithm.name}', which draws nothing"
                )
            if algorithm.moves is not None and raw != (algorithm.moves == "scale"):
                choices = "'log' or 'log_per_tensor' (or 'log_per_group')" if raw else "'raw'"
                raise UserError(
                    f"search.parametrization '{self.parametrization}' does not suit search.algorithm "
                    f"'{algorithm.name}'; choose {choices}"
                )
        for name in ("zero_points", "grid_start"):
            if raw and getattr(self, name):
                raise UserError(f"search.{name} needs a log parametrization, not 'raw'")

    @property
    def fitness_name(self) -> str:
        """What the fitness is called."""
        return self.fitness if isinstance(self.fitness, str) else as_term(self.fitness).name

    @property
    def num_candidates(self) -> int:
        """Candidates evaluated in each generation, of all restarts."""
        return self.population_size * self.restarts

    def space(self, sites: Iterable[str], segment: str, specs: Specs) -> SearchSpace:
        """What is searched in the blocks of one segment; `sites` are all that have scales."""
        return make_space(
            self.sites,
            sites,
            self.parametrization,
            segment,
            specs=specs,
            group_size=self.group_size,
            zero_points=self.zero_points,
        )

    def strategy(self, solution: Any) -> Strategy:
        """The algorithm at work over solutions of one shape.

        Raises:
          UserError: its name is unknown, or it refuses the population size.
        """
        kind = find_algorithm(self.algorithm)
        return Strategy(kind, kind.build(self, solution), self.restarts)

    def visits(self, length: int) -> tuple[int, tuple[int, ...]]:
        """Blocks searched at once in a segment of so many, and the first of each visit, in order."""
        size = min(self.blocks_per_visit, length)
        return size, tuple(max(first, 0) for first in range(length - size, -size, -size))

    def objectives(self) -> tuple[Objective, Objective]:
        """What is minimised on the images searched on, and on those held out.

        Without a batch size (see `fitted`) all images are one batch.

        Raises:
          UserError: a term is unknown, or its weight no positive number.
        """
        make = partial(
            make_objective, more=self.fitness_functions, batch_size=self.batch_size, top_k=self.top_k
        )
        return make(self.fitness), make(self.holdout_fitness or self.fitness)

    @property
    def has_features(self) -> bool:
        """Whether the fitness, on either side, has the features that the classifiers read."""
        return any(objective.reads("features") for objective in self.objectives())

    @property
    def usual_batch(self) -> int:
        """The size of batches that nobody has set, where the number of images allows it."""
        return 50 if self.holdout else 100

    def fitted(self, num_images: int) -> "SearchConfig":
        """The settings with a batch size for so many images. One that is set stays as it is.

        Raises:
          UserError: no size fits: a contrastive fitness compares the images of a batch.
        """
        if self.batch_size is not None:
            return self
        sizes = [size for size in range(1, self.usual_batch + 1) if num_images % size == 0]
        fitting = [size for size in sizes if not self.holdout or self._held_out(num_images, size) > 0]
        size = max(fitting, default=1)
        if size == 1 and any(term.contrastive for each in self.objectives() for _, term in each.terms):
            better = max(4, num_images - num_images % (10 if num_images > 10 else 2))
            raise UserError(
                f"{num_images} calibration images make no equal batches, in which the fitness compares them: "
                f"set data.num_calibration to {better}"
            )
        return replace(self, batch_size=size)

    def _held_out(self, num_images: int, batch_size: int) -> int:
        return int(num_images * self.holdout) // batch_size * batch_size

    def num_held_out(self, num_images: int) -> int:
        """Calibration images that only decide on moves.

        Raises:
          UserError: there are too few images for one whole batch on either side.
        """
        batch_size = self.fitted(num_images).batch_size or 1
        count = self._held_out(num_images, batch_size)
        if self.holdout and not 0 < count < num_images:
            raise UserError(
                f"search.holdout {self.holdout} of {num_images} calibration images leaves no whole batch of "
                f"{batch_size} on one side: use more images, a smaller batch, or --search.holdout 0"
            )
        return count

    def placement(self, mesh: Mesh | None, num_images: int) -> Placement | None:
        """How the calibration images lie over the devices: those searched on, then those held out."""
        if mesh is None:
            return None
        held_out = self.num_held_out(num_images)
        return Placement(mesh, (num_images - held_out, held_out), self.chunks()[0])

    @property
    def counts_blocks(self) -> bool:
        """Whether every block has a program of its own (`block_loop`)."""
        if self.block_loop is not None:
            return self.block_loop == "counted"
        often = self.budget is None and self.passes * self.generations >= COUNTED_FROM
        return often and jax.default_backend() != "cpu"

    def chunks(self) -> tuple[int, int]:
        """Images and candidates run at once: the settings, or what suits the backend."""
        images, population = (10, 1) if jax.default_backend() == "cpu" else (100, 16)
        return self.image_chunk or images, self.population_chunk or population
