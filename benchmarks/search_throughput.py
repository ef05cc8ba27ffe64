"""The speed of a search: candidate-images per second over a whole pass, relative to the float forward pass.

    python benchmarks/search_throughput.py

A pass is that of the paper: over all blocks, last to first, 3 generations of one child, fitness on all
images. The time includes caching the blocks' inputs and evaluating the start, but only the children count. It
does not include compilation. A candidate that changes block b runs only b and what follows, 6.5 of 12 blocks
on average. Search and float forward save most of the last block, of which only the class token is read. So a
ratio of 1.94 would mean that quantization, the cache and the start cost nothing.
"""

from dataclasses import replace
from typing import Any, NamedTuple

import jax
import numpy as np

from benchmarks.command import main, num_repeats
from benchmarks.float_forward import best_task
from benchmarks.peak import block_flops, last_block_flops, peak_flops
from benchmarks.subject import Options, Subject
from benchmarks.timing import Task, count_compilations, interleave
from evolq_jax.calibration.calibrate import calibrate
from evolq_jax.network.network import Network
from evolq_jax.network.parts import ModelParts
from evolq_jax.objective.objective import Teacher
from evolq_jax.quant.qparams import QParams
from evolq_jax.quant.scheme import QuantConfig
from evolq_jax.quant.spec import Specs
from evolq_jax.quantized.logits import compute_logits
from evolq_jax.search.config import ATTENTION_WEIGHTS, SearchConfig
from evolq_jax.search.driver import search
from evolq_jax.search.problem import Data, Problem, make_data, make_problem
from evolq_jax.search.state import State, init
from evolq_jax.typing import Array, Params

MATMUL = QuantConfig("matmul", activation_observer="minmax", quantize_image=True)
FULLY_QUANTIZED = QuantConfig(
    "fully_quantized", activation_observer="omse", residual_observer="ptf", quantize_image=True
)
INTEGER = replace(FULLY_QUANTIZED, integer_layer_norm=True)
SCHEMES = {"matmul": MATMUL, "fully_quantized": FULLY_QUANTIZED, "… integer LayerNorm": INTEGER}


class Case(NamedTuple):
    """One row's setting."""

    scheme: str
    image_chunk: int
    generations: int = 3
    children: int = 1
    population_chunk: int = 1


CASES = (
    *(Case(scheme, chunk) for scheme in ("matmul", "fully_quantized") for chunk in (4, 5, 10, 20)),
    Case("… integer LayerNorm", 10),
    *(Case("matmul", 10, 1, 4, chunk) for chunk in (1, 4)),
)
QUICK = (Case("matmul", 5), Case("matmul", 10), Case("fully_quantized", 10), Case("matmul", 10, 1, 4, 4))


def paper_search(number: int, case: Case) -> SearchConfig:
    """One pass of the paper's search, scored on `number` images."""
    return SearchConfig(
        algorithm="EvolQ",
        sites=ATTENTION_WEIGHTS,
        parametrization="raw",
        passes=1,
        generations=case.generations,
        population_size=case.children,
        fitness="info_nce",
        batch_size=number,
        holdout=0.0,
        image_chunk=case.image_chunk,
        population_chunk=case.population_chunk,
    )


class Arrays(NamedTuple):
    """Of a search."""

    params: Params
    qparams: QParams
    tokens: Array  # calibration images at the first block's input [B, ...]
    teacher: Array  # logits [B, C]


def begin_search(
    config: SearchConfig, parts: ModelParts, specs: Specs, arrays: Arrays
) -> tuple[Problem, Data, State]:
    """What `evolq_jax.search.driver.run` takes."""
    params, qparams, tokens, teacher = arrays
    problem = make_problem(config, parts, specs, qparams, num_images=len(teacher))
    data = make_data(problem, params, tokens, Teacher(teacher))
    return problem, data, init(problem, qparams, jax.random.key(0))


def one_pass(subject: Subject, case: Case) -> Task:
    """A pass with its compilation taken off; compiles most of it now, in a pass of one generation."""
    parts, params, number = subject.parts, subject.params, len(subject.pixels)
    sites, specs, blank = subject.quantizers(SCHEMES[case.scheme])
    qparams = calibrate(parts, specs, params, [subject.normalised()[:10]], sites=sites, qparams=blank).qparams
    tokens = subject.tokens(specs, qparams, 10)
    pixels = np.asarray(subject.pixels)
    teacher = compute_logits(Network(parts, params, subject.preprocessing), pixels, 10)
    arrays = params, qparams, tokens, jax.numpy.asarray(teacher)

    def task(case: Case = case) -> float:
        began = begin_search(paper_search(number, case), parts, specs, Arrays(*arrays))
        with count_compilations() as compilations:
            result = search(*began)
        return result.seconds - sum(compilations.seconds)

    task(case._replace(generations=1))
    return task


def row(subject: Subject, case: Case, float_forward: Task, peak: float, repeats: int) -> dict[str, Any]:
    """The float forward and a pass in turn."""
    seconds = interleave({"float": float_forward, "pass": one_pass(subject, case)}, repeats)
    depth, per_block = subject.config.depth, case.generations * case.children
    candidates = depth * per_block * len(subject.pixels)
    ratios = candidates * np.array(seconds["float"]) / np.array(seconds["pass"])
    # Of candidates, of the pass that fills the cache, and of the start. The searched block runs whole.
    last = per_block * (depth - 1)
    blocks = per_block * depth * (depth + 1) // 2 - last + depth + 1
    flops = blocks * block_flops(subject.config) + last * last_block_flops(subject.config)
    speed = len(subject.pixels) * flops / float(np.median(seconds["pass"]))
    return {
        "scheme": case.scheme,
        "image chunk": case.image_chunk,
        "children": case.children,
        "at once": case.population_chunk,
        "candidate images/s": round(candidates / float(np.median(seconds["pass"])), 1),
        "float images/s": round(1 / float(np.median(seconds["float"])), 1),
        "ratio": round(float(np.median(ratios)), 2),
        "share of peak": round(speed / peak, 3),
    }


def measure(subject: Subject, options: Options) -> list[dict[str, Any]]:
    """A row for every scheme and chunk."""
    float_forward, peak = best_task(subject, options), peak_flops()
    cases, repeats = QUICK if options.quick else CASES, num_repeats(options)
    return [row(subject, case, float_forward, peak, repeats) for case in cases]


if __name__ == "__main__":
    main(__doc__, {"search: a pass of the paper's schedule": measure})
