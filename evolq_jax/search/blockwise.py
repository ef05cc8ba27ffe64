"""The block-wise search: passes over the blocks, last to first, a few generations at each."""

import time
from collections.abc import Callable, Iterable
from functools import partial
from itertools import count
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from evosax.algorithms.base import EvolutionaryAlgorithm

from evolq_jax.errors import UserError
from evolq_jax.network import is_stacked
from evolq_jax.quant.spec import Specs, scope, select
from evolq_jax.search import programs
from evolq_jax.search.algorithms import make_algorithm, make_params, num_generations, start, unravel
from evolq_jax.search.budget import candidate_images, num_blocks
from evolq_jax.search.config import SearchConfig, num_noise_copies
from evolq_jax.search.evaluate import Quantized
from evolq_jax.search.halving import halve, image_counts
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
    """The scales found, and the fitness they started and ended with.

    Where the fitness has a block's own output in it, both are means over the blocks, each as it was at its
    block's first and last visit.
    """

    scales: Scales
    start_fitness: float
    fitness: float
    evaluations: int
    kept: int  # moves, of as many visits
    visits: int
    seconds: float
    candidate_images: float  # spent in all (search/budget.py)
    noise: float | None  # mean standard deviation of the fitness among equals; None: not measured


class _Segment(NamedTuple):
    """Static things of one segment: its number, space, algorithm, and that of the first pass."""

    number: int
    space: SearchSpace
    algorithm: EvolutionaryAlgorithm
    grid: EvolutionaryAlgorithm | None
    size: int  # blocks searched at once
    firsts: tuple[int, ...]  # the first of them at each visit


class _Score(Protocol):
    """Fitness [P] of candidates on the images searched on (part 0), or on those held out (1)."""

    def __call__(self, part: int, candidates: Scales, num_images: int | None = None, /) -> Array:
        """On the first `num_images`; None: on all of the part."""
        ...


class _Visit(NamedTuple):
    """A block, where it starts, and how its candidates are scored."""

    network: Quantized
    segment: _Segment
    block: int
    start: Scales
    score: _Score

    @property
    def place(self) -> tuple[int, int]:
        """The block among all segments'."""
        return self.segment.number, self.block


def _alone(tree: Any) -> Any:
    """A population of one."""
    return jax.tree.map(lambda leaf: leaf[None], tree)


def _mean(fitness: dict[tuple[int, int], Array]) -> float:
    return float(np.mean([float(value) for value in fitness.values()]))


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
    network = programs.quantize(specs, params, scales)
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
        self.scoring, self.held_out_scoring = config.scorings()
        self.temperature = jnp.float32(config.temperature)
        self.step, self.density = jnp.float32(config.epsilon), jnp.float32(config.density)
        self.evaluations, self.visits, self.began = 0, 0, time.monotonic()
        self.block_images = 0  # what was spent: images through one block
        self.fitness = self.held_out_fitness = jnp.asarray(jnp.inf)  # of the network as it is
        # First and last fitness: one entry, or one for each block where a block's own output counts.
        self.first: dict[tuple[int, int], Array] = {}
        self.last: dict[tuple[int, int], Array] = {}
        self.kept, self.noise = 0, list[float]()
        self.num_searched = len(teacher) - config.num_held_out(len(teacher))
        self.teachers = jnp.split(teacher, [self.num_searched])
        self.image_counts = image_counts(config.halving, self.num_searched, config.batch_size)

    def __call__(self, network: Quantized, scales: Scales, tokens: Array) -> SearchResult:
        segments = [self._segment(number, scales) for number in range(len(self.parts.segments))]
        searched = [segment for segment in segments if segment is not None]
        settings = self.parts, self.specs
        for pass_number in self._passes():
            inputs = programs.cache_inputs(*settings, self.scoring.image_chunk, network, tokens)
            self.block_images += len(tokens) * num_blocks(self.parts)
            for segment in reversed(searched):
                name = self.parts.segments[segment.number].name
                split = jnp.split(inputs.pop(name), [self.num_searched], axis=1)
                for block in segment.firsts:
                    if not self._is_spent():
                        network = self._visit(network, segment, split, pass_number, block)
            if self._is_spent():
                break
        seconds = time.monotonic() - self.began
        return SearchResult(
            network.scales,
            _mean(self.first),
            _mean(self.last),
            self.evaluations,
            self.kept,
            self.visits,
            seconds,
            candidate_images(self.parts, self.block_images),
            float(np.mean(self.noise)) if self.noise else None,
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
        size, firsts = config.visits(segment.length)
        start_scales = programs.slice_blocks(scope(scales, segment.name), jnp.int32(0), size)
        solution = space.encode_blocks(start_scales)
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
        return _Segment(number, space, make(config.algorithm), grid, size, firsts)

    def _visit(
        self, network: Quantized, segment: _Segment, inputs: list[Array], pass_number: int, block: int
    ) -> Quantized:
        """A few generations at one block; keeps the best if it is better than the start.

        `inputs` are the blocks' inputs [L, B, ...] of the images searched on, and of those held out.
        """
        config, algorithm, generations = self.config, segment.algorithm, self.config.generations
        if pass_number == 0 and segment.grid is not None:
            algorithm, generations = segment.grid, config.grid_start
        name = self.parts.segments[segment.number].name
        start_scales = programs.slice_blocks(scope(network.scales, name), jnp.int32(block), segment.size)
        visit = _Visit(network, segment, block, start_scales, self._scorer(network, segment, inputs, block))
        self._score_start(visit)
        key = jax.random.fold_in(self.key, self.visits)
        self.visits += 1
        params = make_params(algorithm, self.step, self.density)
        state = start(algorithm, key, segment.space.encode_blocks(start_scales), self.fitness, params)
        for generation in range(num_generations(algorithm, generations)):
            ask_key, tell_key = jax.random.split(jax.random.fold_in(key, generation))
            population, state = algorithm.ask(ask_key, state, params)
            candidates = programs.decode(segment.space, population, start_scales, self.step)
            fitness = halve(partial(visit.score, 0), candidates, self.image_counts)
            state, _ = algorithm.tell(tell_key, population, fitness, state, params)
            self._tell_watcher(pass_number, name, block, generation, fitness.min(), state.best_fitness)
            if self._is_spent():
                break
        best = unravel(algorithm, state.best_solution)
        network = self._accept(visit, best, state.best_fitness)
        self.last = {**(self.last if self.scoring.has_local else {}), visit.place: self.fitness}
        return network

    def _score_start(self, visit: _Visit) -> None:
        """Finds out the fitness of the network as it is, where it is not known from the visit before."""
        first, start_scales = self.visits == 0, _alone(visit.start)
        if self.config.rescore_start or first or self.scoring.has_local:
            self.fitness = visit.score(0, start_scales)[0]
        if self.config.holdout and (first or self.held_out_scoring.has_local):
            self.held_out_fitness = visit.score(1, start_scales)[0]
        if first or self.scoring.has_local:
            self.first.setdefault(visit.place, self.fitness)

    def _threshold(self, visit: _Visit) -> Array | float:
        """What a move must gain: `min_gain` standard deviations of the fitness's noise at this block."""
        if not self.config.min_gain:
            return 0.0
        key = jax.random.fold_in(self.key, 2**32 - self.visits)  # no visit's own
        copies = programs.jitter(visit.start, key, num_noise_copies(self.config))
        noise = jnp.std(visit.score(0, copies), ddof=1)
        self.noise.append(float(noise))
        return self.config.min_gain * noise

    def _accept(self, visit: _Visit, best: Any, fitness: Array) -> Quantized:
        """The network with the best solution, if that is better than the start on all images."""
        if not fitness < self.fitness - self._threshold(visit):
            return visit.network
        decoded = programs.decode(visit.segment.space, _alone(best), visit.start, self.step)
        best_scales = programs.slice_block(decoded, 0)
        if self.config.holdout:
            held_out_fitness = visit.score(1, _alone(best_scales))[0]
            if not held_out_fitness < self.held_out_fitness:
                return visit.network
            self.held_out_fitness = held_out_fitness
        self.fitness, self.kept = fitness, self.kept + 1
        name = self.parts.segments[visit.segment.number].name
        return programs.write_back(self.specs, name, visit.network, best_scales, jnp.int32(visit.block))

    def _scorer(self, network: Quantized, segment: _Segment, inputs: list[Array], block: int) -> _Score:
        """How candidates for one block are scored; counts what it costs."""
        index, number, targets = jnp.int32(block), segment.number, dict[int, Array]()

        def score(part: int, candidates: Scales, num_images: int | None = None) -> Array:
            scoring = (self.scoring, self.held_out_scoring)[part]
            size, all_images = jax.tree.leaves(candidates)[0].shape[0], len(self.teachers[part])
            num_images = num_images or all_images
            if scoring.has_local and part not in targets:
                settings = self.parts, scoring.image_chunk, number, segment.size
                targets[part] = programs.float_blocks(*settings, network.params, index, inputs[part])
                self.block_images += all_images * segment.size
            self.evaluations += size
            blocks_run = scoring.blocks_run(self.parts, number, block, segment.size)
            self.block_images += size * num_images * blocks_run
            return programs.score(
                self.parts,
                self.specs,
                scoring,
                number,
                network,
                candidates,
                index,
                inputs[part],
                self.teachers[part],
                self.temperature,
                targets.get(part),
                num_images,
            )

        return score

    def _tell_watcher(
        self, pass_number: int, segment: str, block: int, generation: int, fitness: Array, best: Array
    ) -> None:
        seconds = time.monotonic() - self.began
        counts = pass_number, segment, block, generation, self.evaluations
        spent = candidate_images(self.parts, self.block_images)
        self.on_generation(Generation(*counts, float(fitness), float(best), seconds, spent))
