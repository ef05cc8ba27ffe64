"""The steady speed of a search's scores on an accelerator, beside what the device could do at most.

    python -m benchmarks.device

It is meant for accelerators. On a CPU it runs too, and `benchmarks/search_throughput.py` says more.
Candidates are for the middle block. Quantizers are not calibrated: speed does not depend on their numbers.
The ceilings are measured in the same run: a large product in each precision, and a copy. The roofline is the
rate that these would allow, by the operations and by the bytes of one image.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import tyro
from rich.console import Console

from benchmarks.command import setting
from benchmarks.entry import run_or_refuse
from benchmarks.launches import launches
from benchmarks.peak import block_flops, last_block_flops, peak_flops
from benchmarks.search_throughput import SCHEMES, Arrays, Case, begin_search, paper_search
from benchmarks.subject import Options as SubjectOptions
from benchmarks.subject import Subject, load
from benchmarks.timing import timed
from evolq_jax.cli.tables import row_table
from evolq_jax.devices.precision import Precision, matmul_precision
from evolq_jax.errors import UserError
from evolq_jax.network.point import at_qparams
from evolq_jax.search import programs
from evolq_jax.search.visit import begin_pass, enter

MIB = 2**20


@dataclass(frozen=True)
class Options:
    """What is measured.

    Attributes:
      images: calibration images, of which those scored at once must be divisors.
      at_once: images and candidates that run at once.
      precisions: of products; those that the device lacks are left out.
      product: rows of the square product that shows the peak.
      copied: MiB of the array whose copy shows the rate of memory.
      repeats: of each measurement, of which the best counts.
    """

    images: int = 1000
    at_once: tuple[tuple[int, int], ...] = ((100, 1), (500, 1), (1000, 1), (100, 16), (100, 64), (1000, 4))
    precisions: tuple[Precision, ...] = ("float32", "tf32", "bfloat16")
    product: int = 8192
    copied: int = 4096
    repeats: int = 5


class Ceiling(NamedTuple):
    """What the device can do at most."""

    flops: float  # per second, of products in one precision
    bytes: float  # per second, read and written


def main() -> None:
    """Prints the setting, the ceilings, and a row for every precision, scheme and size."""
    options = tyro.cli(Options, description=__doc__)
    subject = load(SubjectOptions(images=options.images))
    console = Console(width=140)
    console.print(", ".join(f"{name} {value}" for name, value in setting(subject, SubjectOptions()).items()))
    rows = list(measure(subject, options))
    console.print(row_table("scores of the middle block", rows[0], [row.values() for row in rows]))


def measure(subject: Subject, options: Options) -> Iterator[dict[str, Any]]:
    """The rows."""
    moved = copy_rate(options.copied * MIB, options.repeats)
    for precision in options.precisions:
        try:
            context = matmul_precision(precision)
        except UserError:  # the device lacks it
            continue
        with context:
            ceiling = Ceiling(peak_flops((options.product,), options.repeats), moved)
            for scheme in ("matmul", "fully_quantized"):
                for images, candidates in options.at_once:
                    case = Case(scheme, images, children=candidates, population_chunk=candidates)
                    yield {"precision": precision, **row(subject, case, ceiling, options.repeats)}


def copy_rate(size: int, repeats: int) -> float:
    """Bytes read and written per second while an array of `size` bytes is negated."""
    x = jnp.ones(size // 4, jnp.float32)
    task = timed(partial(jax.jit(jnp.negative), x))
    return 2 * size / min(task() for _ in range(repeats))


def row(subject: Subject, case: Case, ceiling: Ceiling, repeats: int) -> dict[str, Any]:
    """Scores of one population: the rate, its share of the ceilings, and the rate that these allow."""
    lowered, arguments = scoring(subject, case)
    compiled = lowered.compile()
    task, work = timed(partial(compiled, *arguments)), launches(compiled.as_text() or "")
    seconds, total = min(task() for _ in range(repeats)), case.children * len(subject.pixels)
    rate, flops, moved = total / seconds, flops_of_image(subject), work.bytes / total
    return {
        "scheme": case.scheme,
        "images": case.image_chunk,
        "candidates": case.population_chunk,
        "candidate images/s": round(rate, 1),
        "of the product peak": round(rate * flops / ceiling.flops, 3),
        "of the copy rate": round(rate * moved / ceiling.bytes, 3),
        "GFLOP an image": round(flops / 1e9, 4),
        "MiB an image": round(moved / MIB, 2),
        "roofline images/s": round(min(ceiling.flops / flops, ceiling.bytes / moved)),
        "kernels": work.total,
    }


def flops_of_image(subject: Subject) -> float:
    """Operations of products for one image and one candidate of the middle block."""
    config = subject.config
    after = config.depth - config.depth // 2 - 1
    head = 2 * config.width * config.num_classes
    rest = (after - 1) * block_flops(config) + last_block_flops(config) if after else 0
    return block_flops(config) + rest + head


def scoring(subject: Subject, case: Case) -> tuple[Any, tuple[Any, ...]]:
    """The scoring program of the middle block, lowered, and its arguments: copies of the start."""
    number = len(subject.pixels)
    _, specs, qparams = subject.quantizers(SCHEMES[case.scheme])
    tokens = subject.tokens(specs, qparams, case.image_chunk)
    teacher = jnp.zeros((number, subject.config.num_classes))
    config = replace(paper_search(number, case), batch_size=None, block_loop="counted")
    problem, data, state = begin_search(
        config, subject.parts, specs, Arrays(subject.params, qparams, tokens, teacher)
    )
    network = at_qparams(specs, data.params, state.qparams)
    state, at = begin_pass(problem, data, state, network)
    place = problem.places[0]._replace(block=subject.config.depth // 2)
    _, blocks = enter(problem, data, state, at, place=place)
    context = blocks.contexts[0]
    candidates = jax.tree.map(lambda leaf: jnp.repeat(leaf[None], case.children, 0), blocks.start)
    lowered = programs.score.lower(
        problem.runner,
        problem.searched.objective,
        context,
        candidates,
        number=0,
        num_images=number,
        block=place.block,
    )
    return lowered, (context, candidates)


if __name__ == "__main__":
    run_or_refuse(main)
