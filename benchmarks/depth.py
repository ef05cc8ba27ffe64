"""How many programs a search compiles, and the wait. The number must not grow with the network's depth.

python -m benchmarks.depth
"""

import time
from typing import Any

import jax
import numpy as np

from benchmarks.command import main
from benchmarks.search_throughput import MATMUL, Arrays, Case, begin_search, paper_search
from benchmarks.subject import Options, Subject
from benchmarks.timing import count_compilations
from evolq_jax.calibration.calibrate import calibrate
from evolq_jax.network.network import Network
from evolq_jax.quantized.logits import compute_logits
from evolq_jax.search.driver import run

DEPTHS = (4, 8, 12)
CASE = Case("matmul", 5)


def row(subject: Subject, case: Case = CASE) -> dict[str, Any]:
    """A search with nothing compiled before it, calibration and teacher being there."""
    parts, params, number = subject.parts, subject.params, len(subject.pixels)
    sites, specs, blank = subject.quantizers(MATMUL)
    qparams = calibrate(parts, specs, params, [subject.normalised()[:10]], sites=sites, qparams=blank).qparams
    tokens = subject.tokens(specs, qparams, 10)
    pixels = np.asarray(subject.pixels)
    teacher = compute_logits(Network(parts, params, subject.preprocessing), pixels, 10)
    ends: list[float] = []
    config, data = paper_search(number, case), jax.numpy.asarray(teacher)
    begun = begin_search(config, parts, specs, Arrays(params, qparams, tokens, data))
    jax.clear_caches()
    began = time.perf_counter()
    with count_compilations() as compilations:
        for _ in run(*begun):
            ends.append(time.perf_counter())
    return {
        "depth": subject.config.depth,
        "compilations": len(compilations.seconds),
        "seconds compiling": round(sum(compilations.seconds), 1),
        "seconds to the first generation": round(ends[0] - began, 1),
        "seconds in all": round(time.perf_counter() - began, 1),
    }


def measure(subject: Subject, options: Options) -> list[dict[str, Any]]:
    """A row for every depth, on 20 images."""
    del options
    subject = subject._replace(pixels=subject.pixels[:20])
    return [row(subject.with_depth(depth)) for depth in DEPTHS if depth <= subject.config.depth]


if __name__ == "__main__":
    main(__doc__, {"compilations of a whole search": measure})
