"""Chunks of a search that fit into a limit of memory, and what is said where they do not."""

import math
import re
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import replace
from typing import NamedTuple

import jax

from evolq_jax.config.experiment import Experiment
from evolq_jax.devices.memory import limit_bytes, usual_bytes
from evolq_jax.errors import UserError
from evolq_jax.pipeline.held import MIB, held, most
from evolq_jax.pipeline.load import Setup
from evolq_jax.pipeline.work import Traced, calibration_work, trace
from evolq_jax.search.config import PREFIX_KINDS, PrefixKind

try:
    import resource
except ImportError:  # Windows
    resource = None

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
    by_chunk = _by_chunk(setup, num_images)

    def needed(choice: Setup) -> int:
        return most(held(choice, num_images, by_chunk(choice.config.calibration.image_chunk)))

    found = next((choice for choice in choices if needed(choice) <= limit), None)
    if found is None:
        least = math.ceil(needed(choices[-1]) / MIB)
        raise UserError(
            f"memory {config.memory} is too little: one image and one candidate at a time need about "
            f"{least} MiB; give more, or lower data.num_calibration (now {num_images})"
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
    return most(held(setup, num_images))


def _by_chunk(setup: Setup, num_images: int) -> Callable[[int], Traced]:
    """What calibration holds, by the images that it runs at once: traced for one, and for the config's."""
    full = trace(setup, num_images)
    calibration = setup.config.calibration
    single = replace(setup, config=replace(setup.config, calibration=replace(calibration, image_chunk=1)))
    least, chunk = calibration_work(single, num_images).held, calibration.image_chunk

    def traced(at_once: int) -> Traced:
        between = round((full.calibration.held - least) * (at_once - 1) / max(chunk - 1, 1))
        return full._replace(calibration=full.calibration._replace(held=least + between))

    return traced


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


def process_bytes() -> int:
    """What this process has held at most: on a CPU, interpreter and compiler share the memory with arrays."""
    if resource is None or jax.default_backend() != "cpu":
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
