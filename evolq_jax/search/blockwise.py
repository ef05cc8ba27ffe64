"""The block-wise search: passes over the blocks, last to first, a few generations at each."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from evosax.algorithms.base import EvolutionaryAlgorithm

from evolq_jax.errors import UserError
from evolq_jax.network import at
from evolq_jax.quant.sites import quant_sites
from evolq_jax.quant.spec import Specs, scope
from evolq_jax.search.algorithms import make_algorithm, start
from evolq_jax.search.evaluate import Quantized, Scoring, at_scales, block_inputs, population_fitness
from evolq_jax.search.evolq import EvolQ, Mutation, Replacement
from evolq_jax.search.space import Parametrization, SearchSpace, make_space
from evolq_jax.typing import Array, ModelParts, Params, Scales

ATTENTION_WEIGHTS = ("*/attn/qkv/weight", "*/attn/proj/weight")


@dataclass(frozen=True)
class SearchConfig:
    """The search's settings.

    Attributes:
      algorithm: `EvolQ` (the paper's tournament) or any evosax algorithm by its class name.
      sites: patterns of the sites whose scales are searched.
      parametrization: `raw` scales, `log` ratios to the start, or one log ratio per tensor.
      passes: times over all blocks.
      generations: generations at each visit of a block (the paper's cycles).
      population_size: candidates evaluated in each generation.
      epsilon: half width of EvolQ's uniform mutation; for log parametrizations the unit of a step.
      mutation: EvolQ: `absolute`, or `relative` to each scale.
      pool_size: EvolQ: members kept; the released code has 15.
      tournament_size: EvolQ: members drawn for each parent; the released code has 10.
      replacement: EvolQ: which members leave the pool, the `worst` or the `oldest`.
      fitness: `info_nce`, `mse`, `cosine` or `kl`, against the teacher's logits; minimised.
      temperature: of infoNCE.
      batch_size: contrastive batch of infoNCE: calibration images must be a multiple of it.
      teacher: `float`, or `integer_layer_norm` (the released code's).
      rescore_start: evaluate a block's start anew at each visit, as released, though it is known.
      image_chunk: images run at once; None: chosen for the backend.
      population_chunk: candidates run at once; None: chosen for the backend.
    """

    algorithm: str = "EvolQ"
    sites: tuple[str, ...] = ATTENTION_WEIGHTS
    parametrization: Parametrization = "raw"
    passes: int = 10
    generations: int = 3
    population_size: int = 1
    epsilon: float = 1e-3
    mutation: Mutation = "relative"
    pool_size: int = 15
    tournament_size: int = 10
    replacement: Replacement = "worst"
    fitness: str = "info_nce"
    temperature: float = 3.0
    batch_size: int = 100
    teacher: Literal["float", "integer_layer_norm"] = "float"
    rescore_start: bool = False
    image_chunk: int | None = None
    population_chunk: int | None = None

    def __post_init__(self) -> None:
        """Rejects sizes that mean nothing."""
        for name in ("passes", "generations", "population_size", "pool_size", "tournament_size", "batch_size"):
            if getattr(self, name) < 1:
                raise UserError(f"search.{name} must be at least 1, not {getattr(self, name)}")
        for name in ("epsilon", "temperature"):
            if not getattr(self, name) > 0:
                raise UserError(f"search.{name} must be positive, not {getattr(self, name)}")

    def chunks(self) -> tuple[int, int]:
        """Images and candidates run at once: the settings, or what suits the backend."""
        images, population = (8, 1) if jax.default_backend() == "cpu" else (100, 16)
        return self.image_chunk or images, self.population_chunk or population


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


class SearchResult(NamedTuple):
    """The scales found, and the fitness they started and ended with."""

    scales: Scales
    start_fitness: float
    fitness: float
    evaluations: int
    seconds: float


def num_evaluations(config: SearchConfig, num_blocks: int) -> int:
    """Candidates that a whole search evaluates."""
    visit = config.generations * config.population_size
    scores = config.passes * num_blocks if config.rescore_start else 1
    return config.passes * num_blocks * visit + scores


class _Segment(NamedTuple):
    """Static things of one segment: its number, space and algorithm."""

    number: int
    space: SearchSpace
    algorithm: EvolutionaryAlgorithm


@partial(jax.jit, static_argnames=("parts", "specs", "chunk"))
def _block_inputs(parts: ModelParts, specs: Specs, chunk: int, network: Quantized, tokens: Array) -> dict:
    return block_inputs(parts, quant_sites(specs), chunk, network.quantized, network.scales, tokens)


@partial(jax.jit, static_argnames=("parts", "specs", "scoring", "number"))
def _score(
    parts: ModelParts,
    specs: Specs,
    scoring: Scoring,
    number: int,
    network: Quantized,
    candidates: Scales,
    index: Array,
    inputs: Array,
    teacher: Array,
    temperature: Array,
) -> Array:
    x = jax.lax.dynamic_index_in_dim(inputs, index, keepdims=False)
    return population_fitness(
        parts, specs, scoring, number, network, candidates, index, x, teacher, temperature
    )


@partial(jax.jit, static_argnames=("parts", "specs", "segment"))
def _write_back(
    parts: ModelParts, specs: Specs, segment: str, network: Quantized, block_scales: Scales, index: Array
) -> Quantized:
    """The network with one block's scales put in."""
    del parts
    scales = dict(network.scales)
    for name, qparams in block_scales.items():
        site = f"{segment}/{name}"
        scales[site] = jax.tree.map(lambda all_, one: all_.at[index].set(one), scales[site], qparams)
    return at_scales(specs, network.params, scales)


@partial(jax.jit, static_argnames=("space", "algorithm"))
def _decode(space: SearchSpace, algorithm: Any, flat: Array, block_scales: Scales, step: Array) -> Scales:
    return space.decode(algorithm._unravel_solution(flat), block_scales, step)


@partial(jax.jit, static_argnames=("space",))
def _decode_population(space: SearchSpace, population: Any, block_scales: Scales, step: Array) -> Scales:
    return jax.vmap(lambda solution: space.decode(solution, block_scales, step))(population)


def search(
    config: SearchConfig,
    parts: ModelParts,
    specs: Specs,
    params: Params,
    scales: Scales,
    tokens: Array,
    teacher: Array,
    key: Array,
    on_generation: Callable[[Generation], None] = lambda record: None,
) -> SearchResult:
    """Improves the scales block by block, last block first; no step makes the fitness worse.

    One program per segment serves all its blocks. The result does not depend on `on_generation`.

    Args:
      config: settings.
      parts: the network's functions.
      specs: its quantizers, resolved.
      params: float parameters (after calibration's chain).
      scales: where to start.
      tokens: the calibration images at the first segment's entry, quantized [B, ...].
      teacher: the teacher's logits on them [B, C].
      key: PRNG key; consumed.
      on_generation: told of every generation, for progress and logs.

    Raises:
      UserError: the images are no multiple of the contrastive batch, or a pattern matches nothing.
    """
    if tokens.shape[0] % config.batch_size:
        raise UserError(
            f"{tokens.shape[0]} calibration images are no multiple of the contrastive batch of "
            f"{config.batch_size}; set search.batch_size or data.num_calibration"
        )
    run = _Search(config, parts, specs, teacher, key, on_generation)
    network = at_scales(specs, params, scales)
    return run(network, scales, tokens)


class _Search:
    """The loop's fixed surroundings, so that its steps have short signatures."""

    def __init__(
        self,
        config: SearchConfig,
        parts: ModelParts,
        specs: Specs,
        teacher: Array,
        key: Array,
        on_generation: Callable[[Generation], None],
    ) -> None:
        self.config, self.parts, self.specs, self.teacher, self.key = config, parts, specs, teacher, key
        self.on_generation = on_generation
        image_chunk, population_chunk = config.chunks()
        self.scoring = Scoring(config.fitness, config.batch_size, image_chunk, population_chunk)
        self.temperature = jnp.float32(config.temperature)
        self.step = jnp.float32(config.epsilon)
        self.evaluations, self.visits, self.began = 0, 0, time.monotonic()
        self.fitness = self.start_fitness = jnp.inf

    def __call__(self, network: Quantized, scales: Scales, tokens: Array) -> SearchResult:
        segments = [self._segment(number, scales) for number in range(len(self.parts.segments))]
        searched = [segment for segment in segments if segment is not None]
        for pass_number in range(self.config.passes):
            inputs = _block_inputs(self.parts, self.specs, self.scoring.image_chunk, network, tokens)
            for segment in reversed(searched):
                name = self.parts.segments[segment.number].name
                for block in reversed(range(self.parts.segments[segment.number].length)):
                    network = self._visit(network, segment, inputs[name], pass_number, block)
        seconds = time.monotonic() - self.began
        return SearchResult(
            network.scales, float(self.start_fitness), float(self.fitness), self.evaluations, seconds
        )

    def _segment(self, number: int, scales: Scales) -> _Segment | None:
        """The space and algorithm of one segment; None where nothing of it is searched."""
        config, segment = self.config, self.parts.segments[number]
        try:
            space = make_space(config.sites, scales, config.parametrization, segment.name)
        except UserError:
            if len(self.parts.segments) == 1:
                raise
            return None
        solution = space.encode(at(scope(scales, segment.name), 0))
        algorithm = make_algorithm(
            config.algorithm,
            config.population_size,
            solution,
            pool_size=config.pool_size,
            tournament_size=config.tournament_size,
            mutation=config.mutation,
            replacement=config.replacement,
        )
        return _Segment(number, space, algorithm)

    def _visit(
        self, network: Quantized, segment: _Segment, inputs: Array, pass_number: int, block: int
    ) -> Quantized:
        """A few generations at one block; keeps the best if it is better than the start."""
        config, algorithm, space = self.config, segment.algorithm, segment.space
        name = self.parts.segments[segment.number].name
        index = jnp.int32(block)
        start_scales = at(scope(network.scales, name), index)
        score = partial(
            _score, self.parts, self.specs, self.scoring, segment.number, network, index=index, inputs=inputs,
            teacher=self.teacher, temperature=self.temperature,
        )  # fmt: skip
        if config.rescore_start or self.visits == 0:
            self.fitness = score(jax.tree.map(lambda leaf: leaf[None], start_scales))[0]
            self.evaluations += 1
            self.start_fitness = self.fitness if self.visits == 0 else self.start_fitness
        key = jax.random.fold_in(self.key, self.visits)
        self.visits += 1
        params = algorithm.default_params
        if isinstance(algorithm, EvolQ):
            params = params.replace(epsilon=self.step)
        state = start(algorithm, key, space.encode(start_scales), self.fitness, params)
        for generation in range(config.generations):
            ask_key, tell_key = jax.random.split(jax.random.fold_in(key, generation))
            population, state = algorithm.ask(ask_key, state, params)
            candidates = _decode_population(space, population, start_scales, self.step)
            fitness = score(candidates)
            state, _ = algorithm.tell(tell_key, population, fitness, state, params)
            self.evaluations += config.population_size
            seconds = time.monotonic() - self.began
            self.on_generation(
                Generation(
                    pass_number, name, block, generation, self.evaluations, float(fitness.min()),
                    float(state.best_fitness), seconds,
                )  # fmt: skip
            )
        if not state.best_fitness < self.fitness:
            return network
        self.fitness = state.best_fitness
        best = _decode(space, algorithm, state.best_solution, start_scales, self.step)
        return _write_back(self.parts, self.specs, name, network, best, index)
