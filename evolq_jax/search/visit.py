"""A visit: a few generations at some blocks, and the best of them kept if it is better than the start."""

import logging
import time
from collections.abc import Generator
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from evolq_jax.devices.mesh import fetch, replicate
from evolq_jax.errors import UserError
from evolq_jax.network.parts import blocks_run
from evolq_jax.network.point import Quantized, requantize
from evolq_jax.quant.qparams import QParams
from evolq_jax.quant.spec import scope
from evolq_jax.search import programs
from evolq_jax.search.budget import num_noise_copies
from evolq_jax.search.generation import Method, ask, start, tell
from evolq_jax.search.halving import halve, stages
from evolq_jax.search.population import Context
from evolq_jax.search.prefixes import Inputs, blocks_to_cache, blocks_to_recompute, cache, inputs_at
from evolq_jax.search.problem import Data, Place, Problem
from evolq_jax.search.state import Generation, State, is_spent, spent
from evolq_jax.typing import Array

_log = logging.getLogger(__name__)


class Pass(NamedTuple):
    """What follows from a state, so that it is not saved with it."""

    network: Quantized  # at the state's scales
    inputs: Inputs  # of the blocks that the pass visits, as far as they are held


class Blocks(NamedTuple):
    """The blocks of a visit: where they are, their scales, and what candidates for them are put into."""

    place: Place
    start: QParams  # a leading axis [blocks] on every leaf
    contexts: tuple[Context, ...]  # on the images searched on, and on those held out


def begin_pass(problem: Problem, data: Data, state: State, network: Quantized) -> tuple[State, Pass]:
    """The inputs of a pass that begins or goes on. Where it goes on, they have been paid for."""
    began = time.monotonic()
    inputs = cache(problem, network, data.tokens)
    if problem.begins_pass(state.visits):
        state = state.spend(block_images=problem.num_images * blocks_to_cache(problem))
    return state._replace(seconds=state.seconds + time.monotonic() - began), Pass(network, inputs)


def visit(
    problem: Problem, data: Data, state: State, at: Pass
) -> Generator[Generation, None, tuple[State, Pass]]:
    """Yields the generations of the next visit, and returns the state after it and what follows from that.

    Whoever asks for no more generations has stopped the search in between.
    """
    began, config = time.monotonic(), problem.config
    place = problem.place(state.visits)
    name = problem.runner.parts.segments[place.segment].name
    state, blocks = enter(problem, data, state, at, place=place)
    state = _score_start(problem, blocks, state)
    segment, generations = problem.segment(place), config.generations
    strategy = segment.strategy
    if place.pass_number == 0 and segment.grid is not None:
        strategy, generations = segment.grid, config.grid_start
    method, told = Method(config, segment.space, strategy), None
    best, visits = blocks.start, np.int32(state.visits)
    running = start(method, blocks.start, key=state.key, visits=visits, fitness=state.fitness)
    state = state._replace(visits=state.visits + 1)
    for generation in range(strategy.num_generations(generations)):
        number = np.int32(generation)
        candidates, asked, running = ask(method, blocks.start, running=running, generation=number)
        fitness = halve(partial(score, problem, blocks), candidates, problem.image_counts)
        for size, num_images in stages(len(fitness), problem.image_counts):
            state = pay(problem, state, place, size=size, num_images=num_images)
        running, on_device, best = tell(method, blocks.start, running=running, asked=asked, fitness=fitness)
        told = jax.device_get(on_device)  # the host waits here alone
        yield Generation(
            pass_number=place.pass_number,
            segment=name,
            block=place.block,
            generation=generation,
            evaluations=state.evaluations,
            fitness=float(told.fitness),
            best_fitness=float(told.best_fitness),
            seconds=state.seconds + time.monotonic() - began,
            candidate_images=spent(problem, state),
        )
        if not told.finite:
            _log.warning(
                "search.algorithm %s, %s block %d, generation %d: no candidate has a finite fitness; the "
                "visit stops",
                *(strategy.kind.name, name, place.block, generation),
            )
        if not told.finite or is_spent(problem, state):
            break
    assert told is not None  # a visit has a generation at least
    state, network = _accept(problem, blocks, state, best, fitness=told.best_fitness)
    last = state.last_fitness
    if not problem.searched.objective.is_local:
        last = np.full_like(last, np.nan)
    last = put(last, place.in_network(problem.runner.parts), state.fitness)
    seconds = state.seconds + time.monotonic() - began
    return state._replace(last_fitness=last, seconds=seconds), at._replace(network=network)


def score(
    problem: Problem,
    blocks: Blocks,
    candidates: QParams,
    num_images: int | None = None,
    *,
    part: int = 0,
    count: int | None = None,
) -> Array:
    """Fitness [P] of candidates for the scales of a visit's blocks.

    Args:
      problem: what is searched.
      blocks: those of the visit.
      candidates: local scales, leading axes [P, blocks] on every leaf.
      num_images: of the part, from the first on; None: all.
      part: the images searched on (0), or those held out (1).
      count: so many are scored, the first ones (`Problem.scores_some`); None: all.
    """
    images, runner, size = problem.parts_of_images[part], problem.runner, len(jax.tree.leaves(candidates)[0])
    # What is scored but once at a visit is not worth a program for each block.
    counted = runner.counts_blocks and size == problem.config.num_candidates
    fitness = programs.score(
        runner,
        images.objective,
        blocks.contexts[part],
        replicate(runner.mesh, candidates),
        number=blocks.place.segment,
        num_images=num_images or images.num_images,
        block=blocks.place.block if counted else None,
        count=np.int32(count or size) if problem.scores_some else None,
    )
    return fetch(runner.mesh, fitness)


def enter(problem: Problem, data: Data, state: State, at: Pass, *, place: Place) -> tuple[State, Blocks]:
    """The blocks of a place in the network as it is, and the state that has paid for what they receive."""
    runner, temperature = problem.runner, jnp.asarray(np.float32(problem.config.temperature))
    name, block = runner.parts.segments[place.segment].name, jnp.asarray(np.int32(place.block))
    inputs = inputs_at(problem, at.network, data.tokens, place=place, cached=at.inputs)
    state = state.spend(block_images=problem.num_images * blocks_to_recompute(problem, place))
    contexts: list[Context] = []
    for part, x, teacher in zip(problem.parts_of_images, inputs, data.teachers, strict=False):
        if part.objective.is_local:
            params, where = at.network.params, {"number": place.segment, "size": place.size}
            teacher = teacher._replace(own_output=programs.float_blocks(runner, params, x, block, **where))
            state = state.spend(block_images=part.num_images * place.size)
        contexts.append(Context(at.network, block, x, teacher, temperature))
    local = programs.slice_blocks(scope(at.network.qparams, name), block, place.size)
    return state, Blocks(place, fetch(runner.mesh, local), tuple(contexts))


def pay(
    problem: Problem,
    state: State,
    place: Place,
    *,
    size: int = 1,
    num_images: int | None = None,
    part: int = 0,
) -> State:
    """The state after so many candidates have been scored on so many images (None: all) of a part."""
    images, parts = problem.parts_of_images[part], problem.runner.parts
    runs_all = images.objective.runs_all
    ran = blocks_run(parts, place.segment, place.block) if runs_all else place.size
    return state.spend(evaluations=size, block_images=size * (num_images or images.num_images) * ran)


def score_alone(
    problem: Problem, blocks: Blocks, state: State, qparams: QParams, *, part: int = 0
) -> tuple[State, np.ndarray]:
    """The fitness [] of one candidate on all images of a part, and the state that has paid for it."""
    # One by one, the program of a generation serves: it stops after the first.
    size = problem.config.num_candidates if problem.scores_some else 1
    same = programs.copies(qparams, size)
    fitness = jax.device_get(score(problem, blocks, same, part=part, count=1))
    return pay(problem, state, blocks.place, part=part), fitness[:1].reshape(())


def _score_start(problem: Problem, blocks: Blocks, state: State) -> State:
    """Finds out the fitness of the network as it is, if it is not known from the visit before."""
    is_local = problem.searched.objective.is_local
    if problem.config.rescore_start or np.isinf(state.fitness) or is_local:
        state, fitness = score_alone(problem, blocks, state, blocks.start)
        if not np.isfinite(fitness):
            raise UserError(
                f"{problem.config.fitness_name} of the quantized network is {float(fitness)} where the "
                "search starts: look at its calibration (`evolq evaluate CONFIG`), or take another "
                "search.fitness"
            )
        state = state._replace(fitness=fitness)
    held_out = problem.held_out
    if held_out is not None and (np.isinf(state.held_out_fitness) or held_out.objective.is_local):
        state, fitness = score_alone(problem, blocks, state, blocks.start, part=1)
        state = state._replace(held_out_fitness=fitness)
    first, number = np.array(state.first_fitness), blocks.place.in_network(problem.runner.parts)
    if np.isnan(first).all() or (is_local and np.isnan(first[number])):
        first = put(first, number, state.fitness)
    return state._replace(first_fitness=first)


def _threshold(problem: Problem, blocks: Blocks, state: State) -> tuple[State, float]:
    """What a move must gain: `min_gain` standard deviations of the fitness's noise at these blocks."""
    config = problem.config
    if not config.min_gain:
        return state, 0.0
    key = jax.random.fold_in(state.key, 2**32 - state.visits)  # no visit's own
    size, runner = num_noise_copies(config), problem.runner
    specs = scope(runner.specs, runner.parts.segments[blocks.place.segment].name)
    scaled = tuple(sorted(name for name in blocks.start if specs[name].has_scale))
    equals = score(problem, blocks, programs.jitter(scaled, blocks.start, key, size))
    noise = np.std(jax.device_get(equals), ddof=1)
    state = pay(problem, state, blocks.place, size=size)
    state = state._replace(noise_sum=state.noise_sum + float(noise), noise_count=state.noise_count + 1)
    return state, config.min_gain * float(noise)


def _accept(
    problem: Problem, blocks: Blocks, state: State, moved: QParams, *, fitness: np.ndarray
) -> tuple[State, Quantized]:
    """The state and the network with the best blocks, if these are better than the start on all images."""
    network, runner = blocks.contexts[0].network, problem.runner
    state, threshold = _threshold(problem, blocks, state)
    if not fitness < state.fitness - threshold:
        return state, network
    if problem.held_out is not None:
        state, held_out_fitness = score_alone(problem, blocks, state, moved, part=1)
        if not held_out_fitness < state.held_out_fitness:
            return state, network
        state = state._replace(held_out_fitness=held_out_fitness)
    name, on_devices = runner.parts.segments[blocks.place.segment].name, replicate(runner.mesh, moved)
    qparams = programs.write_back(name, network.qparams, on_devices, np.int32(blocks.place.block))
    # All weights by what a continued search starts with: those of one block alone could differ in a bit.
    network = requantize(runner.specs, network, qparams)
    qparams = fetch(runner.mesh, network.qparams)
    return state._replace(qparams=qparams, fitness=fitness, kept=state.kept + 1), network


def put(by_block: np.ndarray, number: int, fitness: np.ndarray) -> np.ndarray:
    """A copy with one entry changed."""
    changed = np.array(by_block)
    changed[number] = float(fitness)
    return changed
