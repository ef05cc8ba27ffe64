"""A visit: a few generations at some blocks, and the best of them kept if it is better than the start."""

import logging
import time
from collections.abc import Generator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from evolq_jax.devices.mesh import fetch, replicate
from evolq_jax.errors import UserError
from evolq_jax.network.parts import blocks_run
from evolq_jax.network.point import Quantized
from evolq_jax.quant.qparams import QParams
from evolq_jax.quant.spec import scope
from evolq_jax.search import programs
from evolq_jax.search.budget import num_noise_copies
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
    key = jax.random.fold_in(state.key, state.visits)
    state = state._replace(visits=state.visits + 1)
    params, step = strategy.kind.params(config, strategy.algorithm), jnp.float32(config.epsilon)
    solution = segment.space.encode_blocks(blocks.start)
    strategy_state = strategy.start(key, solution, fitness=state.fitness, params=params)
    for generation in range(strategy.num_generations(generations)):
        ask_key, tell_key = jax.random.split(jax.random.fold_in(key, generation))
        population, strategy_state = strategy.ask(ask_key, strategy_state, params)
        candidates = programs.decode(segment.space, population, blocks.start, step)
        fitness = halve(partial(score, problem, blocks), candidates, problem.image_counts)
        for size, num_images in stages(len(fitness), problem.image_counts):
            state = pay(problem, state, place, size=size, num_images=num_images)
        finite = bool(jnp.isfinite(fitness).any())
        if finite:
            fitness = _ranked(fitness)
            strategy_state = strategy.tell(tell_key, population, fitness, strategy_state, params=params)
        yield Generation(
            pass_number=place.pass_number,
            segment=name,
            block=place.block,
            generation=generation,
            evaluations=state.evaluations,
            fitness=float(fitness.min()),
            best_fitness=float(strategy.best_fitness(strategy_state)),
            seconds=state.seconds + time.monotonic() - began,
            candidate_images=spent(problem, state),
        )
        if not finite:
            _log.warning(
                "search.algorithm %s, %s block %d, generation %d: no candidate has a finite fitness; the "
                "visit stops",
                *(strategy.kind.name, name, place.block, generation),
            )
        if not finite or is_spent(problem, state):
            break
    best, fitness = strategy.best(strategy_state), strategy.best_fitness(strategy_state)
    state, network = _accept(problem, blocks, state, best, fitness=fitness)
    last = state.last_fitness
    if not problem.searched.objective.is_local:
        last = np.full_like(last, np.nan)
    last = put(last, place.in_network(problem.runner.parts), state.fitness)
    seconds = state.seconds + time.monotonic() - began
    return state._replace(last_fitness=last, seconds=seconds), at._replace(network=network)


def _ranked(fitness: Array) -> Array:
    """The fitness [P] with the worst finite one in place of those that are not finite.

    Algorithms take differences and minima of them, which one NaN would spoil.
    """
    finite = jnp.isfinite(fitness)
    return jnp.where(finite, fitness, jnp.where(finite, fitness, -jnp.inf).max())


def score(
    problem: Problem, blocks: Blocks, candidates: QParams, num_images: int | None = None, *, part: int = 0
) -> Array:
    """Fitness [P] of candidates for the scales of a visit's blocks.

    Args:
      problem: what is searched.
      blocks: those of the visit.
      candidates: local scales, leading axes [P, blocks] on every leaf.
      num_images: of the part, from the first on; None: all.
      part: the images searched on (0), or those held out (1).
    """
    images, runner = problem.parts_of_images[part], problem.runner
    fitness = programs.score(
        runner,
        images.objective,
        blocks.contexts[part],
        replicate(runner.mesh, candidates),
        number=blocks.place.segment,
        num_images=num_images or images.num_images,
    )
    return fetch(runner.mesh, fitness)


def enter(problem: Problem, data: Data, state: State, at: Pass, *, place: Place) -> tuple[State, Blocks]:
    """The blocks of a place in the network as it is, and the state that has paid for what they receive."""
    runner, temperature = problem.runner, jnp.float32(problem.config.temperature)
    name, block = runner.parts.segments[place.segment].name, jnp.asarray(place.block, jnp.int32)
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
) -> tuple[State, Array]:
    """The fitness [] of one candidate on all images of a part, and the state that has paid for it."""
    fitness = score(problem, blocks, _alone(qparams), part=part)[0]
    return pay(problem, state, blocks.place, part=part), fitness


def _score_start(problem: Problem, blocks: Blocks, state: State) -> State:
    """Finds out the fitness of the network as it is, if it is not known from the visit before."""
    is_local = problem.searched.objective.is_local
    if problem.config.rescore_start or jnp.isinf(state.fitness) or is_local:
        state, fitness = score_alone(problem, blocks, state, blocks.start)
        if not jnp.isfinite(fitness):
            raise UserError(
                f"{problem.config.fitness_name} of the quantized network is {float(fitness)} where the "
                "search starts: look at its calibration (`evolq evaluate CONFIG`), or take another "
                "search.fitness"
            )
        state = state._replace(fitness=fitness)
    held_out = problem.held_out
    if held_out is not None and (jnp.isinf(state.held_out_fitness) or held_out.objective.is_local):
        state, fitness = score_alone(problem, blocks, state, blocks.start, part=1)
        state = state._replace(held_out_fitness=fitness)
    first, number = np.array(state.first_fitness), blocks.place.in_network(problem.runner.parts)
    if np.isnan(first).all() or (is_local and np.isnan(first[number])):
        first = put(first, number, state.fitness)
    return state._replace(first_fitness=first)


def _threshold(problem: Problem, blocks: Blocks, state: State) -> tuple[State, Array | float]:
    """What a move must gain: `min_gain` standard deviations of the fitness's noise at these blocks."""
    config = problem.config
    if not config.min_gain:
        return state, 0.0
    key = jax.random.fold_in(state.key, 2**32 - state.visits)  # no visit's own
    size, runner = num_noise_copies(config), problem.runner
    specs = scope(runner.specs, runner.parts.segments[blocks.place.segment].name)
    scaled = tuple(sorted(name for name in blocks.start if specs[name].has_scale))
    noise = jnp.std(score(problem, blocks, programs.jitter(scaled, blocks.start, key, size)), ddof=1)
    state = pay(problem, state, blocks.place, size=size)
    state = state._replace(noise_sum=state.noise_sum + float(noise), noise_count=state.noise_count + 1)
    return state, config.min_gain * noise


def _accept(
    problem: Problem, blocks: Blocks, state: State, best: Any, *, fitness: Array
) -> tuple[State, Quantized]:
    """The state and the network with the best solution, if that is better than the start on all images."""
    network, runner = blocks.contexts[0].network, problem.runner
    state, threshold = _threshold(problem, blocks, state)
    if not fitness < state.fitness - threshold:
        return state, network
    space, step = problem.segment(blocks.place).space, jnp.float32(problem.config.epsilon)
    moved = programs.slice_block(programs.decode(space, _alone(best), blocks.start, step), 0)
    if problem.held_out is not None:
        state, held_out_fitness = score_alone(problem, blocks, state, moved, part=1)
        if not held_out_fitness < state.held_out_fitness:
            return state, network
        state = state._replace(held_out_fitness=held_out_fitness)
    name, on_devices = runner.parts.segments[blocks.place.segment].name, replicate(runner.mesh, moved)
    qparams = programs.write_back(name, network.qparams, on_devices, np.int32(blocks.place.block))
    # All weights by what a continued search starts with: those of one block alone could differ in a bit.
    network = programs.requantize(runner.specs, network, qparams)
    qparams = fetch(runner.mesh, network.qparams)
    return state._replace(qparams=qparams, fitness=fitness, kept=state.kept + 1), network


def _alone(tree: Any) -> Any:
    """A population of one."""
    return jax.tree.map(lambda leaf: leaf[None], tree)


def put(by_block: np.ndarray, number: int, fitness: Array) -> np.ndarray:
    """A copy with one entry changed."""
    changed = np.array(by_block)
    changed[number] = float(fitness)
    return changed
