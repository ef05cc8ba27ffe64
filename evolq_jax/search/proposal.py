"""Scales of the whole network that a search may begin with."""

import time
from typing import NamedTuple

import jax.numpy as jnp

from evolq_jax.devices.mesh import fetch, replicate
from evolq_jax.network.point import Quantized
from evolq_jax.quant.qparams import QParams
from evolq_jax.quant.spec import scope
from evolq_jax.search import programs
from evolq_jax.search.problem import Data, Place, Problem
from evolq_jax.search.state import Generation, State, spent
from evolq_jax.search.visit import begin_pass, enter, put, score_alone
from evolq_jax.typing import Array


class Proposal(NamedTuple):
    """Other scales for the whole network, which a search may take before its first visit."""

    qparams: QParams
    block_images: int  # what finding them has cost: images through one block


def consider(
    problem: Problem, data: Data, state: State, network: Quantized, *, proposal: Proposal
) -> tuple[State, Quantized, Generation]:
    """The proposed network if it is better than `network` on all images, else `network`.

    Both are scored as a whole: a block's own output plays no part.

    Args:
      problem: what is searched.
      data: its arrays.
      state: before the first visit.
      network: at the state's scales.
      proposal: the other scales.

    Returns:
      The state and the network to begin with, and a record of the comparison.
    """
    began, runner, whole = time.monotonic(), problem.runner, problem.whole
    proposed = programs.quantize(runner.specs, data.params, replicate(runner.mesh, proposal.qparams))
    segments = runner.parts.segments
    number = next(n for n, segment in enumerate(segments) if scope(proposal.qparams, segment.name))
    size, _ = problem.config.visits(segments[number].length)
    state, at = begin_pass(whole, data, state, network)
    state, blocks = enter(whole, data, state, at, place=Place(0, number, 0, size))
    local = programs.slice_blocks(scope(proposed.qparams, segments[number].name), jnp.int32(0), size)
    others = blocks._replace(
        start=fetch(runner.mesh, local),
        contexts=tuple(context._replace(network=proposed) for context in blocks.contexts),
    )
    scores: list[list[Array]] = []
    for candidate in (blocks, others):
        scores.append([])
        for part in range(len(blocks.contexts)):
            state, fitness = score_alone(whole, candidate, state, candidate.start, part=part)
            scores[-1].append(fitness)
    before, after = scores
    is_better = all(bool(new < old) for new, old in zip(after, before, strict=True))
    known = after if is_better else before
    state = state.spend(block_images=proposal.block_images)
    if not problem.searched.objective.is_local:
        first = put(state.first_fitness, 0, before[0])
        state = state._replace(fitness=known[0], first_fitness=first)
    if problem.held_out is not None and not problem.held_out.objective.is_local:
        state = state._replace(held_out_fitness=known[1])
    if is_better:
        state, network = state._replace(qparams=fetch(runner.mesh, proposed.qparams)), proposed
    seconds = state.seconds + time.monotonic() - began
    record = Generation(
        pass_number=0,
        segment="all",
        block=0,
        generation=0,
        evaluations=state.evaluations,
        fitness=float(after[0]),
        best_fitness=float(known[0]),
        seconds=seconds,
        candidate_images=spent(problem, state),
    )
    return state._replace(seconds=seconds), network, record
