"""How many kernels one generation of a search launches, what they move, and how often the host must help.

    python -m benchmarks.kernels

It compiles the programs of a generation for this machine's device and reads them. Nothing is timed. Two loops
over the blocks are counted: `shared`, one program for all blocks, the default on CPUs; and `counted`, one for
each block, the default on accelerators. Another device fuses otherwise: compare rows of one run.
"""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.command import main
from benchmarks.launches import Launches, launches
from benchmarks.search_throughput import SCHEMES, Arrays, Case, begin_search, paper_search
from benchmarks.subject import Options, Subject
from evolq_jax.search.ahead import programs_at, shapes_for
from evolq_jax.search.config import BlockLoop, SearchConfig
from evolq_jax.search.problem import Data, Problem
from evolq_jax.search.state import State

MIB = 2**20
LOOPS: tuple[BlockLoop, ...] = ("shared", "counted")


def of_generation(problem: Problem, data: Data, state: State, block: int) -> dict[str, Launches]:
    """Of the programs of one generation at a block of a network of one segment, without running any."""
    runner, place = problem.runner, problem.places[0]._replace(block=block)
    found = programs_at(problem, shapes_for(problem, data, state), place)
    # after the searched block, and before the last one if that is a program part of its own
    own_last = runner.parts.segments[0].last is not None
    rounds = max(runner.parts.segments[0].length - block - 1 - own_last, 0)
    names = {"ask": "ask", "score": "score 0", "tell": "tell"}
    return {part: launches(found[name]().compile().as_text() or "", rounds) for part, name in names.items()}


def row(subject: Subject, scheme: str, config: SearchConfig, block: int) -> dict[str, Any]:
    """One generation at one block."""
    _, specs, qparams = subject.quantizers(SCHEMES[scheme])
    tokens: Any = jax.eval_shape(lambda: subject.tokens(specs, qparams, config.chunks()[0]))
    logits = jnp.zeros((len(subject.pixels), subject.config.num_classes))
    began = begin_search(config, subject.parts, specs, Arrays(subject.params, qparams, tokens, logits))
    parts = of_generation(*began, block)
    score = parts["score"]
    return {
        "scheme": scheme,
        "block loop": config.block_loop,
        "block": block,
        "kernels": score.total,
        "copies": score.kinds["copy"],
        "MiB copied": round(score.copied / MIB, 1),
        "MiB moved": round(score.bytes / MIB),
        "host waits": score.host,
        "unknown loops": score.unknown_loops,
        "kernels of ask, tell": parts["ask"].total + parts["tell"].total,
    }


def measure(subject: Subject, options: Options) -> list[dict[str, Any]]:
    """A row for a block at each end and in the middle, with all images at once."""
    del options
    number, depth = len(subject.pixels), subject.config.depth
    config = replace(
        paper_search(number, Case("matmul", number, children=2, population_chunk=2)), batch_size=None
    )
    return [
        row(subject, scheme, replace(config, block_loop=loop), block)
        for scheme in ("matmul", "fully_quantized")
        for block in (0, depth // 2, depth - 1)
        for loop in LOOPS
    ]


if __name__ == "__main__":
    main(__doc__, {"one generation of two candidates": measure})
