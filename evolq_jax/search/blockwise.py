"""The block-wise search: passes over the blocks, last to first, a few generations at each."""

import time
from collections.abc import Callable, Iterable
from functools import partial
from itertools import count
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from evolq_jax.devices.mesh import fetch, replicate
from evolq_jax.errors import UserError
from evolq_jax.network.parts import ModelParts
from evolq_jax.network.point import Quantized
from evolq_jax.objective.objective import Teacher
from evolq_jax.quant.qparams import QParams
from evolq_jax.quant.spec import Specs, scope
from evolq_jax.search import programs
from evolq_jax.search.algorithms import make_params, num_generations
from evolq_jax.search.budget import candidate_images
from evolq_jax.search.config import SearchConfig, num_noise_copies
from evolq_jax.search.halving import halve, image_counts
from evolq_jax.search.prefixes import Prefixes
from evolq_jax.search.problem import Runner
from evolq_jax.search.records import Generation, Position, Proposal, SearchResult
from evolq_jax.search.scorer import Score, Scorer
from evolq_jax.search.segments import SearchedSegment, searched_segment
from evolq_jax.typing import Array, Params


class _Visit(NamedTuple):
    """A block, where it starts, and how its candidates are scored."""

    network: Quantized
    segment: SearchedSegment
    block: int
    start: QParams
    score: Score
    place: int  # the block's number in the whole network


def _alone(tree: Any) -> Any:
    """A population of one."""
    return jax.tree.map(lambda leaf: leaf[None], tree)


def search(
    config: SearchConfig,
    parts: ModelParts,
    specs: Specs,
    params: Params,
    qparams: QParams,
    tokens: Array,
    teacher: Array,
    key: Array,
    on_generation: Callable[[Generation], None] = lambda record: None,
    on_visit: Callable[[Position], None] = lambda position: None,
    position: Position | None = None,
    features: Array | None = None,
    mesh: Mesh | None = None,
    proposal: Proposal | None = None,
) -> SearchResult:
    """Improves the scales block by block, last block first.

    No step makes the fitness worse, neither on the images that candidates are scored on nor, with a
    `holdout`, on those held out. The evaluation images play no part.

    One program per segment serves all its blocks. The result does not depend on `on_generation` and
    `on_visit`, and is bit for bit the same when a search goes on from a position of an earlier one with
    otherwise equal arguments, on the same hardware.

    Args:
      config: settings.
      parts: the network's functions.
      specs: its quantizers, resolved.
      params: float parameters (after calibration's chain).
      qparams: where to start.
      tokens: the calibration images at the first segment's entry, quantized [B, ...]; with a mesh as
        `config.layout` puts them.
      teacher: the teacher's logits on them [B, C].
      key: PRNG key; consumed.
      on_generation: told of every generation, for progress and logs.
      on_visit: told of every visit where the search then stands.
      position: where to go on; None: from the start.
      features: the teacher's on them [B, ...]; needed where the fitness has a `features` term.
      mesh: devices that candidates and images are spread over; None: one device.
      proposal: scales of the whole network to begin with if they are better than `qparams`, on the images
        searched on and on those held out; plays no part once a search has made a visit.

    Raises:
      UserError: the images are no multiple of the contrastive batch or too few to hold some out, or a
        pattern matches nothing.
    """
    if len(teacher) % config.batch_size:
        raise UserError(
            f"{len(teacher)} calibration images are no multiple of the contrastive batch of "
            f"{config.batch_size}; set search.batch_size or data.num_calibration"
        )
    run = _Search(config, parts, specs, teacher, features, key, on_generation, on_visit, mesh)
    return run(params, position or Position.first(parts, qparams), tokens, proposal)


class _Search:
    """The loop's fixed surroundings, so that its steps have short signatures."""

    def __init__(
        self,
        config: SearchConfig,
        parts: ModelParts,
        specs: Specs,
        teacher: Array,
        features: Array | None,
        key: Array,
        on_generation: Callable[[Generation], None],
        on_visit: Callable[[Position], None],
        mesh: Mesh | None,
    ) -> None:
        self.config, self.parts, self.specs, self.key = config, parts, specs, key
        self.on_generation, self.on_visit = on_generation, on_visit
        self.objective, self.held_out_objective = config.objectives()
        self.step, self.density = jnp.float32(config.epsilon), jnp.float32(config.density)
        self.num_images = len(teacher)
        self.num_searched = len(teacher) - config.num_held_out(len(teacher))
        # Weights, scales and what the teacher makes lie on all devices; strategies run on the first alone.
        placement = config.placement(mesh, len(teacher))
        self.runner = Runner(parts, specs, *config.chunks(), placement)
        self.put, self.fetch = partial(replicate, mesh), partial(fetch, mesh)
        self.scorer = Scorer(
            self.runner,
            Teacher(teacher, features),
            num_searched=self.num_searched,
            temperature=config.temperature,
        )
        self.image_counts = image_counts(config.halving, self.num_searched, config.batch_size)

    def __call__(
        self, params: Params, position: Position, tokens: Array, proposal: Proposal | None
    ) -> SearchResult:
        self._start_at(position)
        network = programs.quantize(self.specs, *self.put((params, position.qparams)))
        settings = self.config, self.parts, self.specs, position.qparams
        segments = [searched_segment(*settings, number) for number in range(len(self.parts.segments))]
        searched = [segment for segment in reversed(segments) if segment is not None]
        first_pass, done = divmod(position.visits, sum(len(segment.firsts) for segment in searched))
        prefixes = Prefixes(self.runner, tokens, num_searched=self.num_searched, kind=self.config.prefixes)
        if proposal is not None and not self.visits:
            network = self._consider(network, proposal, prefixes)
        for pass_number in self._passes(first_pass):
            if self._is_spent():
                break
            ran = prefixes.begin_pass(network)
            self.scorer.block_images += 0 if done else self.num_images * ran  # else they have been paid for
            for segment in searched:
                to_visit = segment.firsts[done:]
                done -= len(segment.firsts) - len(to_visit)
                for block in to_visit:
                    if not self._is_spent():
                        inputs, ran = prefixes.begin_visit(network, segment.number, block)
                        self.scorer.block_images += self.num_images * ran
                        network = self._visit(network, segment, inputs, pass_number, block)
                        self.on_visit(self._position(network))
        return self._result(self._position(network))

    def _start_at(self, position: Position) -> None:
        self.fitness, self.held_out_fitness = position.fitness, position.held_out_fitness
        self.first, self.last = np.array(position.first_fitness), np.array(position.last_fitness)
        self.noise_sum, self.noise_count = position.noise_sum, position.noise_count
        self.visits, self.scorer.evaluations, self.kept = position.visits, position.evaluations, position.kept
        self.scorer.block_images = position.block_images
        self.began = time.monotonic() - position.seconds

    def _position(self, network: Quantized) -> Position:
        fitness = self.fitness, self.held_out_fitness, self.first.copy(), self.last.copy()
        counts = self.noise_count, self.visits, self.scorer.evaluations, self.kept, self.scorer.block_images
        seconds = time.monotonic() - self.began
        return Position(self.fetch(network.qparams), *fitness, self.noise_sum, *counts, seconds)

    def _result(self, last: Position) -> SearchResult:
        return SearchResult(
            qparams=last.qparams,
            start_fitness=float(np.nanmean(last.first_fitness)),
            fitness=float(np.nanmean(last.last_fitness)),
            evaluations=last.evaluations,
            kept=last.kept,
            visits=last.visits,
            seconds=last.seconds,
            candidate_images=candidate_images(self.parts, last.block_images),
            noise=last.noise_sum / last.noise_count if last.noise_count else None,
        )

    def _passes(self, first: int) -> Iterable[int]:
        """As many as the settings say, or as the budget allows."""
        passes = self.config.passes + bool(self.config.grid_start)
        return range(first, passes) if self.config.budget is None else count(first)

    def _is_spent(self) -> bool:
        """Whether the budget is; at least one block is visited."""
        budget, spent = self.config.budget, candidate_images(self.parts, self.scorer.block_images)
        return budget is not None and self.visits > 0 and spent >= budget

    def _visit(
        self, network: Quantized, segment: SearchedSegment, inputs: list[Array], pass_number: int, block: int
    ) -> Quantized:
        """A few generations at one block; keeps the best if it is better than the start.

        `inputs` are the blocks' inputs [L, B, ...] of the images searched on, and of those held out.
        """
        config, strategy, generations = self.config, segment.strategy, self.config.generations
        if pass_number == 0 and segment.grid is not None:
            strategy, generations = segment.grid, config.grid_start
        name = self.parts.segments[segment.number].name
        blocks = programs.slice_blocks(scope(network.qparams, name), np.int32(block), segment.size)
        start_qparams = self.fetch(blocks)
        objectives = self.objective, self.held_out_objective
        where = {"number": segment.number, "num_blocks": segment.size, "block": block}
        score = self.scorer.on(network, inputs, objectives, **where)
        place = block + sum(before.length for before in self.parts.segments[: segment.number])
        visit = _Visit(network, segment, block, start_qparams, score, place)
        self._score_start(visit)
        key = jax.random.fold_in(self.key, self.visits)
        self.visits += 1
        params = make_params(strategy.algorithm, self.step, self.density)
        state = strategy.start(key, segment.space.encode_blocks(start_qparams), self.fitness, params)
        for generation in range(num_generations(strategy.algorithm, generations)):
            ask_key, tell_key = jax.random.split(jax.random.fold_in(key, generation))
            population, state = strategy.ask(ask_key, state, params)
            candidates = programs.decode(segment.space, population, start_qparams, self.step)
            fitness = halve(partial(visit.score, 0), candidates, self.image_counts)
            state = strategy.tell(tell_key, population, fitness, state, params)
            best_fitness = strategy.best_fitness(state)
            self._tell_watcher(pass_number, name, block, generation, fitness.min(), best_fitness)
            if self._is_spent():
                break
        network = self._accept(visit, strategy.best(state), strategy.best_fitness(state))
        if not self.objective.is_local:
            self.last[:] = np.nan
        self.last[place] = float(self.fitness)
        return network

    def _score_start(self, visit: _Visit) -> None:
        """Finds out the fitness of the network as it is, where it is not known from the visit before."""
        start_qparams, has_local = _alone(visit.start), self.objective.is_local
        if self.config.rescore_start or jnp.isinf(self.fitness) or has_local:
            self.fitness = visit.score(0, start_qparams)[0]
        if self.config.holdout and (jnp.isinf(self.held_out_fitness) or self.held_out_objective.is_local):
            self.held_out_fitness = visit.score(1, start_qparams)[0]
        if np.isnan(self.first).all() or (has_local and np.isnan(self.first[visit.place])):
            self.first[visit.place] = float(self.fitness)

    def _consider(self, network: Quantized, proposal: Proposal, prefixes: Prefixes) -> Quantized:
        """The proposed network if it is better than `network` on all images, else `network`."""
        proposed = programs.quantize(self.specs, *self.put((network.params, proposal.qparams)))
        segments = self.parts.segments
        number = next(n for n, segment in enumerate(segments) if scope(proposal.qparams, segment.name))
        ran = prefixes.begin_pass(network)
        inputs, ran_for_block = prefixes.begin_visit(network, number, 0)
        self.scorer.block_images += proposal.block_images + self.num_images * (ran + ran_for_block)
        size, _ = self.config.visits(segments[number].length)
        whole = self.objective.whole, self.held_out_objective.whole

        def scores(at: Quantized) -> list[Array]:
            blocks = programs.slice_blocks(scope(at.qparams, segments[number].name), np.int32(0), size)
            score = self.scorer.on(at, inputs, whole, number=number, num_blocks=size, block=0)
            return [
                score(part, _alone(self.fetch(blocks)))[0] for part in range(1 + bool(self.config.holdout))
            ]

        before, after = scores(network), scores(proposed)
        is_better = all(bool(new < old) for new, old in zip(after, before, strict=True))
        known = after if is_better else before
        if not self.objective.is_local:
            self.fitness, self.first[0] = known[0], float(before[0])
        if self.config.holdout and not self.held_out_objective.is_local:
            self.held_out_fitness = known[1]
        self._tell_watcher(0, "all", 0, 0, after[0], known[0])
        return proposed if is_better else network

    def _threshold(self, visit: _Visit) -> Array | float:
        """What a move must gain: `min_gain` standard deviations of the fitness's noise at this block."""
        if not self.config.min_gain:
            return 0.0
        key = jax.random.fold_in(self.key, 2**32 - self.visits)  # no visit's own
        specs = scope(self.specs, self.parts.segments[visit.segment.number].name)
        scaled = tuple(sorted(name for name in visit.start if specs[name].has_scale))
        copies = programs.jitter(scaled, visit.start, key, num_noise_copies(self.config))
        noise = jnp.std(visit.score(0, copies), ddof=1)
        self.noise_sum, self.noise_count = self.noise_sum + float(noise), self.noise_count + 1
        return self.config.min_gain * noise

    def _accept(self, visit: _Visit, best: Any, fitness: Array) -> Quantized:
        """The network with the best solution, if that is better than the start on all images."""
        if not fitness < self.fitness - self._threshold(visit):
            return visit.network
        decoded = programs.decode(visit.segment.space, _alone(best), visit.start, self.step)
        best_qparams = programs.slice_block(decoded, 0)
        if self.config.holdout:
            held_out_fitness = visit.score(1, _alone(best_qparams))[0]
            if not held_out_fitness < self.held_out_fitness:
                return visit.network
            self.held_out_fitness = held_out_fitness
        self.fitness, self.kept = fitness, self.kept + 1
        name = self.parts.segments[visit.segment.number].name
        best_qparams = self.put(best_qparams)
        qparams = programs.write_back(name, visit.network.qparams, best_qparams, np.int32(visit.block))
        # By the program that a continued search starts with: weights by another one could differ in a bit.
        return programs.quantize(self.specs, visit.network.params, qparams)

    def _tell_watcher(
        self, pass_number: int, segment: str, block: int, generation: int, fitness: Array, best: Array
    ) -> None:
        seconds = time.monotonic() - self.began
        counts = pass_number, segment, block, generation, self.scorer.evaluations
        spent = candidate_images(self.parts, self.scorer.block_images)
        self.on_generation(Generation(*counts, float(fitness), float(best), seconds, spent))
