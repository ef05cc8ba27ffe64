"""What a search holds in memory, and chunks of it that fit into a limit."""

import math
import re
import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from typing import NamedTuple

import jax

from evolq_jax.config.experiment import Experiment
from evolq_jax.devices.memory import limit_bytes, usual_bytes
from evolq_jax.errors import UserError
from evolq_jax.network.network import Network
from evolq_jax.network.reading import float_reading
from evolq_jax.network.walk import block_inputs
from evolq_jax.pipeline.load import Setup
from evolq_jax.search.config import PREFIX_KINDS, PrefixKind
from evolq_jax.typing import Array, Params

try:
    import resource
except ImportError:  # Windows
    resource = None

MIB = 2**20
# On a CPU interpreter, libraries and compiler share the limit with the arrays (537 MiB, docs/performance.md).
PROCESS = 600 * MIB
# Images times candidates. More gain nothing, and arrays of more values than 32 bits count are slow.
MOST_AT_ONCE = 4096


def fit_memory(setup: Setup, num_images: int) -> Setup:
    """The largest chunks within `memory` and the settings.

    On an accelerator, chunks that nobody set grow, up to all images and candidates at once; without `memory`
    they fill half of it. Where chunks must shrink, first fewer candidates run at once; then the inputs of all
    blocks are kept in bfloat16, then not at all; then fewer images run at once.

    They do not depend on what the process happens to hold: the same config gives the same chunks, and so the
    same bits. Where chunks are lowered, calibration and evaluation run no more images at once than search.

    Raises:
      UserError: not even one image and one candidate fit.
    """
    config, usual = setup.config, usual_bytes()
    limit = usual if config.memory is None else limit_bytes(config.memory)
    if limit is None:
        return setup
    larger = [] if usual is None else _larger_sizes(config, num_images)
    smaller = _smaller_sizes(config, num_images)
    choices = [
        *(_with_sizes(setup, sizes) for sizes in larger),
        setup,
        *(_with_sizes(setup, sizes) for sizes in smaller),
    ]
    fitting = (choice for choice in choices if needed_bytes(choice, num_images) <= limit)
    found = next(fitting, None)
    if found is None:
        needed = math.ceil(needed_bytes(choices[-1], num_images) / MIB)
        raise UserError(
            f"memory {config.memory} is too little: one image and one candidate at a time need about "
            f"{needed} MiB; give more, or lower data.num_calibration (now {num_images})"
        )
    return found


class _Sizes(NamedTuple):
    """Images and candidates that run at once, and how blocks' inputs are kept."""

    images: int
    candidates: int
    prefixes: PrefixKind


def _smaller_sizes(config: Experiment, num_images: int) -> list[_Sizes]:
    """From the config's sizes down. They divide what they are for."""
    search = config.search
    images, population = search.chunks()
    num_searched = num_images - search.num_held_out(num_images)
    first, *rest = _divisors(num_searched, images)
    candidates = _divisors(search.num_candidates, population)
    kinds = PREFIX_KINDS[PREFIX_KINDS.index(search.prefixes) :]
    sizes = [_Sizes(first, p, kind) for kind in kinds for p in candidates]
    return sizes + [_Sizes(i, 1, kinds[-1]) for i in rest]


def _larger_sizes(config: Experiment, num_images: int) -> list[_Sizes]:
    """More than the usual sizes, of what the config leaves open: the most at once first."""
    search = config.search
    images, candidates = search.chunks()
    num_searched = num_images - search.num_held_out(num_images)
    images = [images] if search.image_chunk else _divisors(num_searched, num_searched)
    candidates = [candidates] if search.population_chunk else _divisors(search.num_candidates, MOST_AT_ONCE)
    usual = math.prod(search.chunks())
    sizes = [_Sizes(i, p, search.prefixes) for i in images for p in candidates]
    at_once = [size for size in sizes if usual < size.images * size.candidates <= MOST_AT_ONCE]
    return sorted(at_once, key=lambda size: (size.images * size.candidates, size.images), reverse=True)


def _divisors(total: int, at_most: int) -> list[int]:
    return [size for size in range(min(total, at_most), 0, -1) if total % size == 0]


def _with_sizes(setup: Setup, sizes: _Sizes) -> Setup:
    config, at_once = setup.config, sizes.images * sizes.candidates
    fitted = replace(
        config,
        search=replace(
            config.search,
            image_chunk=sizes.images,
            population_chunk=sizes.candidates,
            prefixes=sizes.prefixes,
        ),
        calibration=replace(config.calibration, image_chunk=min(config.calibration.image_chunk, at_once)),
        evaluation_batch=min(config.evaluation_batch, at_once),
    )
    return replace(setup, config=fitted)


def needed_bytes(setup: Setup, num_images: int) -> int:
    """The estimate that `memory` limits."""
    process = PROCESS if jax.default_backend() == "cpu" else 0
    return process + sum(memory(setup, num_images).values())


@contextmanager
def out_of_memory(*lower: str) -> Generator[None, None, None]:
    """Makes one clear line of XLA's error.

    Args:
      lower: settings that bound the memory of what is run here, as on the command line.

    Raises:
      UserError: the device has no more memory.
    """
    try:
        yield
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        if isinstance(error, jax.errors.JaxRuntimeError) and not _is_exhausted(str(error)):
            raise
        asked = re.search(r"allocat\w* (?:of )?([\d.]+ ?[KMGT]?i?B(?:ytes)?|\d+ bytes)", str(error))
        wanted = f" (asked for {asked.group(1)})" if asked else ""
        raise UserError(
            f"out of memory on {jax.devices()[0].device_kind}{wanted}: lower {' or '.join(lower)}, "
            "or set --memory"
        ) from error


def _is_exhausted(message: str) -> bool:
    return "RESOURCE_EXHAUSTED" in message or "out of memory" in message.lower()


def memory(setup: Setup, num_images: int) -> dict[str, int]:
    """What a search holds on the device at once, in bytes, by what it is for."""
    image_chunk, population_chunk = setup.config.search.chunks()
    weights = sum(4 * leaf.size for leaf in jax.tree.leaves(setup.model.params))
    names = [segment.name + "/" for segment in setup.model.parts.segments]
    blocks = [[info for name, info in setup.sites.items() if name.startswith(prefix)] for prefix in names]
    activations = max(
        sum(4 * math.prod(info.shape) for info in block if not info.is_weight) for block in blocks
    )
    size, channels = setup.model.preprocessing.size, len(setup.model.preprocessing.mean)
    return {
        "parameters, float and quantized": 2 * weights,
        "calibration images, as bytes and normalised": 5 * num_images * size * size * channels,
        "inputs of every block": num_images * _kept_bytes(setup),
        "activations of one block": image_chunk * population_chunk * activations,
    }


def _kept_bytes(setup: Setup) -> int:
    """What is kept of all blocks' inputs for one image."""
    every, largest = _input_bytes(setup.model)
    # The one in use is float32; to compute it takes the first block's too.
    kept = {"float32": every, "bfloat16": every // 2 + largest, "recompute": 2 * largest}
    return kept[setup.config.search.prefixes]


def _input_bytes(model: Network) -> tuple[int, int]:
    """The inputs of all blocks for one image, and the largest of them, in float32."""
    parts, size = model.parts, model.preprocessing.size

    def inputs(params: Params, image: Array) -> dict[str, Array]:
        reading = float_reading(params)
        tokens = parts.segments[0].enter(params, reading.outside, image)
        return block_inputs(parts, reading, tokens, chunk=1)

    image = jax.ShapeDtypeStruct((1, size, size, len(model.preprocessing.mean)), "float32")
    shapes = [leaf.shape for leaf in jax.tree.leaves(jax.eval_shape(inputs, model.params, image))]
    return sum(4 * math.prod(shape) for shape in shapes), max(4 * math.prod(shape[1:]) for shape in shapes)


def process_bytes() -> int:
    """What this process has held at most: on a CPU, interpreter and compiler share the memory with arrays."""
    if resource is None or jax.default_backend() != "cpu":
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
