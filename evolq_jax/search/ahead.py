"""The programs of a search for shapes in place of arrays: to compile them ahead, or to look into them."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.stages import Lowered

from evolq_jax.devices.ahead import compile_ahead, shapes_of
from evolq_jax.network.point import Quantized
from evolq_jax.quant.spec import scope
from evolq_jax.search import generation, programs
from evolq_jax.search.generation import Method
from evolq_jax.search.population import Context
from evolq_jax.search.problem import Data, Place, Problem
from evolq_jax.search.state import State
from evolq_jax.typing import Array

_NUMBER: Any = jax.ShapeDtypeStruct((), np.int32)
_SCALAR: Any = jax.ShapeDtypeStruct((), np.float32)

Programs = dict[str, Callable[[], Lowered]]  # by name


class Shapes(NamedTuple):
    """Shapes of what a search runs on."""

    network: Quantized
    inputs: dict[str, list[Array]]  # of all blocks by segment, by part of the images
    data: Data
    key: Array


def compile_search(problem: Problem, data: Data, state: State) -> None:
    """Begins to compile what the visits of a pass run, while the inputs of their blocks are computed.

    On several devices, where inputs are computed anew, and where a block imitates its float self, each
    program is compiled when it is called.
    """
    local = any(part.objective.is_local for part in problem.parts_of_images)
    if problem.runner.mesh is not None or problem.config.prefixes == "recompute" or local:
        return
    shapes, found = shapes_for(problem, data, state), Programs()
    dtype: Any = jnp.dtype(problem.config.prefixes)
    cache = programs.cache_inputs.lower
    found["inputs"] = partial(cache, problem.runner, shapes.network, shapes.data.tokens, dtype=dtype)
    for place in problem.places:
        same = f"{place.segment} {place.block if problem.runner.counts_blocks else ''}"
        found |= {f"{name} {same}": program for name, program in programs_at(problem, shapes, place).items()}
    compile_ahead(*found.values())


def shapes_for(problem: Problem, data: Data, state: State) -> Shapes:
    """The shapes of a network, the inputs of its blocks and the data."""
    qparams, runner = shapes_of(state.qparams), problem.runner
    network = Quantized(shapes_of(data.params), shapes_of(data.params), qparams)
    cache: Any = partial(programs.cache_inputs, runner, dtype=jnp.dtype(problem.config.prefixes))
    split = partial(programs.split, runner, num_searched=problem.searched.num_images)
    every = jax.eval_shape(cache, network, data.tokens)
    inputs = {name: jax.eval_shape(split, leaf) for name, leaf in every.items()}
    return Shapes(network, inputs, shapes_of(data), state.key)


def programs_at(problem: Problem, shapes: Shapes, place: Place) -> Programs:
    """What a visit of a place runs in each generation, and before the first one."""
    runner, segment = problem.runner, problem.segment(place)
    name, strategy = runner.parts.segments[place.segment].name, segment.grid or segment.strategy
    method = Method(problem.config, segment.space, strategy)
    at = programs.slice_blocks.eval_shape(scope(shapes.network.qparams, name), _NUMBER, size=place.size)
    begin = {"key": shapes.key, "visits": _NUMBER, "fitness": _SCALAR}
    running = generation.start.eval_shape(method, at, **begin)
    asking: Any = {"running": running, "generation": _NUMBER}
    candidates, asked, running = generation.ask.eval_shape(method, at, **asking)
    fitness = jax.ShapeDtypeStruct((problem.config.num_candidates,), np.float32)
    telling: Any = {"running": running, "asked": asked, "fitness": fitness}
    scoring = {
        f"score {part}": partial(
            programs.score.lower,
            runner,
            images.objective,
            Context(shapes.network, _NUMBER, shapes.inputs[name][part], shapes.data.teachers[part], _SCALAR),
            candidates,
            number=place.segment,
            num_images=images.num_images if part else problem.image_counts[0],
            block=place.block if runner.counts_blocks and not part else None,
            count=_NUMBER if problem.scores_some else None,
        )
        for part, images in enumerate(problem.parts_of_images)
        if not part or (problem.scores_some and not _alike(problem))
    }
    return {
        **scoring,
        "start": partial(generation.start.lower, method, at, **begin),
        "ask": partial(generation.ask.lower, method, at, **asking),
        "tell": partial(generation.tell.lower, method, at, **telling),
    }


def _alike(problem: Problem) -> bool:
    """Whether the images held out are scored by the same program as those searched on."""
    first, *others = problem.parts_of_images
    return problem.image_counts[0] == first.num_images and all(part == first for part in others)
