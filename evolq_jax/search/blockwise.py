"""The block-wise search: passes over the blocks, last to first, a few generations at each."""

import time
from collections.abc import Callable, Iterable
from functools import partial
from itertools import count
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from evosax.algorithms.base import EvolutionaryAlgorithm

from evolq_jax.errors import UserError
from evolq_jax.network import at, is_stacked
from evolq_jax.quant.sites import quant_sites
from evolq_jax.quant.spec import Specs, scope, select
from evolq_jax.search.algorithms import make_algorithm, make_params, num_generations, start, unravel
from evolq_jax.search.budget import blocks_run, candidate_images, num_blocks
from evolq_jax.search.config import SearchConfig
from evolq_jax.search.evaluate import Quantized, Scoring, at_scales, block_inputs, population_fitness
from evolq_jax.search.space import SearchSpace
from evolq_jax.typing import Array, ModelParts, Params, Scales


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


class SearchResult(NamedTuple):
    """The scales found, and the fitness they started and ended with."""

    scales: Scales
    start_fitness: float
    fitness: float
    evaluations: int
    kept: int  # moves, of as many visits
    visits: int
    seconds: float
    candidate_images: float  # spent in all (search/budget.py)


class _Segment(NamedTuple):
    """Static things of one segment: its number, space, algorithm, and that of the first pass."""

    number: int
    space: SearchSpace
    algorithm: EvolutionaryAlgorithm
    grid: EvolutionaryAlgorithm | None


@partial(jax.jit, static_argnames=("parts", "specs", "chunk"))
def _block_inputs(
    parts: ModelParts, specs: Specs, chunk: int, network: Quantized, tokens: Array
) -> dict[str, Array]:
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


@jax.jit
def _slice(stacked: Any, index: Array | int) -> Any:
    """`at`, compiled once for all leaves instead of once for each shape."""
    return at(stacked, index)


@partial(jax.jit, static_argnames=("specs",))
def _at_scales(specs: Specs, params: Params, scales: Scales) -> Quantized:
    return at_scales(specs, params, scales)


@partial(jax.jit, static_argnames=("specs", "segment"))
def _write_back(
    specs: Specs, segment: str, network: Quantized, block_scales: Scales, index: Array
) -> Quantized:
    """The network with one block's scales put in."""
    scales = dict(network.scales)
    for name, qparams in block_scales.items():
        site = f"{segment}/{name}"
        scales[site] = jax.tree.map(lambda all_, one: all_.at[index].set(one), scales[site], qparams)
    return at_scales(specs, network.params, scales)


@partial(jax.jit, static_argnames=("space",))
def _decode(space: SearchSpace, population: dict[str, Array], start_scales: Scales, step: Array) -> Scales:
    """The block's scales for a population of solutions: a leading P axis on every leaf."""
    return jax.vmap(lambda solution: space.decode(solution, start_scales, step))(population)


def _alone(tree: Any) -> Any:
    """A population of one."""
    return jax.tree.map(lambda leaf: leaf[None], tree)


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
    """Improves the scales block by block, last block first.

    No step makes the fitness worse, neither on the images that candidates are scored on nor, with a
    `holdout`, on those held out. The evaluation images play no part.

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
      UserError: the images are no multiple of the contrastive batch or too few to hold some out, or a
        pattern matches nothing.
    """
    if tokens.shape[0] % config.batch_size:
        raise UserError(
            f"{tokens.shape[0]} calibration images are no multiple of the contrastive batch of "
            f"{config.batch_size}; set search.batch_size or data.num_calibration"
        )
    run = _Search(config, parts, specs, teacher, key, on_generation)
    network = _at_scales(specs, params, scales)
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
        self.config, self.parts, self.specs, self.key = config, parts, specs, key
        self.on_generation = on_generation
        image_chunk, population_chunk = config.chunks()
        self.scoring = Scoring(config.fitness, config.batch_size, image_chunk, population_chunk)
        self.temperature = jnp.float32(config.temperature)
        self.step, self.density = jnp.float32(config.epsilon), jnp.float32(config.density)
        self.evaluations, self.visits, self.began = 0, 0, time.monotonic()
        self.block_images = 0  # what was spent: images through one block
        self.fitness = self.start_fitness = self.held_out_fitness = jnp.asarray(jnp.inf)
        self.kept = 0
        self.num_searched = len(teacher) - config.num_held_out(len(teacher))
        self.teachers = jnp.split(teacher, [self.num_searched])

    def __call__(self, network: Quantized, scales: Scales, tokens: Array) -> SearchResult:
        segments = [self._segment(number, scales) for number in range(len(self.parts.segments))]
        searched = [segment for segment in segments if segment is not None]
        for pass_number in self._passes():
            inputs = _block_inputs(self.parts, self.specs, self.scoring.image_chunk, network, tokens)
            self.block_images += len(tokens) * num_blocks(self.parts)
            for segment in reversed(searched):
                name = self.parts.segments[segment.number].name
                split = jnp.split(inputs.pop(name), [self.num_searched], axis=1)
                for block in reversed(range(self.parts.segments[segment.number].length)):
                    if not self._is_spent():
                        network = self._visit(network, segment, split, pass_number, block)
            if self._is_spent():
                break
        seconds = time.monotonic() - self.began
        return SearchResult(
            network.scales,
            float(self.start_fitness),
            float(self.fitness),
            self.evaluations,
            self.kept,
            self.visits,
            seconds,
            candidate_images(self.parts, self.block_images),
        )

    def _passes(self) -> Iterable[int]:
        """As many as the settings say, or as the budget allows."""
        passes = self.config.passes + bool(self.config.grid_start)
        return range(passes) if self.config.budget is None else count()

    def _is_spent(self) -> bool:
        """Whether the budget is; at least one block is visited."""
        budget, spent = self.config.budget, candidate_images(self.parts, self.block_images)
        return budget is not None and self.visits > 0 and spent >= budget

    def _segment(self, number: int, scales: Scales) -> _Segment | None:
        """The space and algorithm of one segment; None where nothing of it is searched."""
        config, segment = self.config, self.parts.segments[number]
        inside = [site for site in select(config.sites, scales) if is_stacked(self.parts, site)]
        if inside and not any(site.startswith(f"{segment.name}/") for site in inside):
            return None  # all that is searched is in other segments
        space = config.space(scales, segment.name, self.specs)
        solution = space.encode(_slice(scope(scales, segment.name), 0))
        make = partial(
            make_algorithm,
            population_size=config.population_size,
            solution=solution,
            pool_size=config.pool_size,
            tournament_size=config.tournament_size,
            mutation=config.mutation,
            replacement=config.replacement,
            antithetic=config.antithetic,
        )
        grid = make("Grid") if config.grid_start else None
        return _Segment(number, space, make(config.algorithm), grid)

    def _visit(
        self, network: Quantized, segment: _Segment, inputs: list[Array], pass_number: int, block: int
    ) -> Quantized:
        """A few generations at one block; keeps the best if it is better than the start.

        `inputs` are the blocks' inputs [L, B, ...] of the images searched on, and of those held out.
        """
        config, algorithm, space = self.config, segment.algorithm, segment.space
        generations = config.generations
        if pass_number == 0 and segment.grid is not None:
            algorithm, generations = segment.grid, config.grid_start
        name = self.parts.segments[segment.number].name
        index = jnp.int32(block)
        start_scales = _slice(scope(network.scales, name), index)

        def score(candidates: Scales, part: int = 0) -> Array:
            size, num_images = jax.tree.leaves(candidates)[0].shape[0], len(self.teachers[part])
            self.evaluations += size
            self.block_images += size * num_images * blocks_run(self.parts, segment.number, block)
            settings = self.parts, self.specs, self.scoring, segment.number
            data = inputs[part], self.teachers[part]
            return _score(*settings, network, candidates, index, *data, self.temperature)

        def score_held_out(block_scales: Scales) -> Array:
            return score(_alone(block_scales), part=1)[0]

        if config.rescore_start or self.visits == 0:
            self.fitness = score(_alone(start_scales))[0]
        if self.visits == 0:
            self.start_fitness = self.fitness
            if config.holdout:
                self.held_out_fitness = score_held_out(start_scales)
        key = jax.random.fold_in(self.key, self.visits)
        self.visits += 1
        params = make_params(algorithm, self.step, self.density)
        state = start(algorithm, key, space.encode(start_scales), self.fitness, params)
        for generation in range(num_generations(algorithm, generations)):
            ask_key, tell_key = jax.random.split(jax.random.fold_in(key, generation))
            population, state = algorithm.ask(ask_key, state, params)
            fitness = score(_decode(space, population, start_scales, self.step))
            state, _ = algorithm.tell(tell_key, population, fitness, state, params)
            self._tell_watcher(pass_number, name, block, generation, fitness.min(), state.best_fitness)
            if self._is_spent():
                break
        if not state.best_fitness < self.fitness:
            return network
        best = _alone(unravel(algorithm, state.best_solution))
        best_scales = _slice(_decode(space, best, start_scales, self.step), 0)
        if config.holdout:
            held_out_fitness = score_held_out(best_scales)
            if not held_out_fitness < self.held_out_fitness:
                return network
            self.held_out_fitness = held_out_fitness
        self.fitness, self.kept = state.best_fitness, self.kept + 1
        return _write_back(self.specs, name, network, best_scales, index)

    def _tell_watcher(
        self, pass_number: int, segment: str, block: int, generation: int, fitness: Array, best: Array
    ) -> None:
        seconds = time.monotonic() - self.began
        counts = pass_number, segment, block, generation, self.evaluations
        spent = candidate_images(self.parts, self.block_images)
        self.on_generation(Generation(*counts, float(fitness), float(best), seconds, spent))
