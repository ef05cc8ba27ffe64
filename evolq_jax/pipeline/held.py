"""What a search holds in memory, phase by phase: arrays, and on a CPU the process around them."""

import math

import jax

from evolq_jax.devices.work import Work
from evolq_jax.pipeline.load import Setup
from evolq_jax.pipeline.work import InputBytes, Traced, trace

MIB = 2**20
# On a CPU the process shares the memory with the arrays. What it takes without them was measured by
# `python -m benchmarks.plan --detail`, with ViT-Tiny and Swin-Tiny:
INTERPRETER = 300 * MIB  # Python and its libraries, before anything is compiled
COMPILER = 120 * MIB  # what the compiler works with at once, and leaves
PROGRAM = 2 * MIB  # a compiled program, and what is kept to call it
KERNEL = 0.15 * MIB  # of a program, each operation that is compiled on its own
SMALL_PROGRAMS = 80  # operations on scales and images that a search and its scores compile one by one

Phases = dict[str, dict[str, int]]


def held(setup: Setup, num_images: int, traced: Traced | None = None) -> Phases:
    """The bytes that each phase of a search holds at once, by what they are for.

    Args:
      setup: of the search.
      num_images: for calibration.
      traced: what its programs do; None: they are traced.
    """
    config, model = setup.config, setup.model
    image_chunk, population_chunk = config.search.chunks()
    calibration, quantized, inputs = trace(setup, num_images) if traced is None else traced
    leaves = [4 * leaf.size for leaf in jax.tree.leaves(model.params)]
    weights, pixels = sum(leaves), num_images * math.prod(model.image_shape)
    images = {"calibration images": pixels}
    corrected = any(link.changes_params for link in config.calibration.links)
    parameters = {"parameters": weights * (2 if corrected else 1), "quantized parameters": weights}
    kept, one = num_images * _kept_bytes(setup, inputs), quantized.held
    block = max(_block_weights(setup))
    phases: Phases = {
        "loading": {"parameters": weights, "arrays of the file": weights, "one parameter": max(leaves)},
        "calibration": images
        | {
            "parameters": weights,
            "normalised images": 4 * pixels,
            "what the links hold": calibration.held,
        },
        "inputs of blocks": images
        | parameters
        | {
            "inputs of every block": kept,
            "the same before they are put in order": num_images * _copied_bytes(setup, inputs),
            "activations": image_chunk * one,
        },
        "candidates": images
        | parameters
        | {
            "inputs of every block": kept,
            "a block's parameters, by candidate": population_chunk * block,
            "activations": image_chunk * population_chunk * one,
        },
        "scores": images | parameters | {"activations": config.evaluation_batch * one},
    }
    if jax.default_backend() == "cpu":
        phases = _with_process(phases, calibration.programs, search_programs(setup, quantized))
    return phases


def most(phases: Phases) -> int:
    """The bytes of the phase that holds most."""
    return max(sum(parts.values()) for parts in phases.values())


def search_programs(setup: Setup, quantized: Work) -> tuple[int, ...]:
    """The sizes of the programs that a search and its scores compile, by the operations in each.

    In each segment, a population, a candidate alone and those on images held out are scored, from the segment
    on. The inputs of all blocks and the logits of three or four networks are programs of a whole network.
    """
    (size,), search, segments = quantized.programs, setup.config.search, setup.model.parts.segments
    scoring = 2 + bool(search.holdout)
    suffixes = [max(1, size * (len(segments) - number) // len(segments)) for number in range(len(segments))]
    whole = 4 + (len(setup.config.calibration.links) > 1)
    return (*suffixes * scoring, *[size] * whole, *[0] * SMALL_PROGRAMS)


def _with_process(phases: Phases, calibration: tuple[int, ...], search: tuple[int, ...]) -> Phases:
    """The same with the process, which keeps what it has compiled."""
    compiled = {"loading": (), "calibration": calibration}
    every = (*calibration, *search)
    return {
        name: parts | {"process": INTERPRETER + _code(compiled.get(name, every))}
        for name, parts in phases.items()
    }


def _code(programs: tuple[int, ...]) -> int:
    return round(COMPILER * bool(programs) + PROGRAM * len(programs) + KERNEL * sum(programs))


def _block_weights(setup: Setup) -> list[int]:
    """The bytes of one block's parameters, by segment."""
    segments = setup.model.parts.segments
    stacked = [setup.model.params[segment.name] for segment in segments]
    return [
        sum(4 * leaf.size for leaf in jax.tree.leaves(tree)) // segment.length
        for tree, segment in zip(stacked, segments, strict=True)
    ]


def _kept_bytes(setup: Setup, inputs: InputBytes) -> int:
    """What is kept of all blocks' inputs for one image."""
    # The one in use is float32; to compute it takes the first block's too.
    kept = {
        "float32": inputs.every,
        "bfloat16": inputs.every // 2 + inputs.largest,
        "recompute": 2 * inputs.largest,
    }
    return kept[setup.config.search.prefixes]


def _copied_bytes(setup: Setup, inputs: InputBytes) -> int:
    """What of them is held twice while they are computed, for one image."""
    copied = {"float32": inputs.every, "bfloat16": inputs.every // 2, "recompute": 0}
    return copied[setup.config.search.prefixes]
