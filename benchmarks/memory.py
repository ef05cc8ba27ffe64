"""The peak memory of a search, by how much runs at once. Each setting runs in its own process.

    python benchmarks/memory.py

Every process evaluates one generation of the last block. On a GPU this is the host's memory.
"""

import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.command import main
from benchmarks.search_throughput import MATMUL, Arrays, Case, begin_search, paper_search
from benchmarks.subject import Options, Subject, load
from evolq_jax.calibration.calibrate import calibrate
from evolq_jax.search.driver import run

ROOT = Path(__file__).resolve().parent.parent
CHILDREN = 8
CHUNKS = ((5, 1), (10, 1), (25, 1), (100, 1), (10, 4), (10, 8))  # images, candidates
QUICK = ((5, 1), (20, 1), (5, 8))


def peak_mib() -> float:
    """The most memory that this process has had resident, in MiB.

    From /proc where there is one: the maximum of `getrusage` starts with the parent's.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        return int(status.read_text().split("VmHWM:")[1].split()[0]) / 2**10
    unit = 1 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def child(images: int, image_chunk: int, population_chunk: int) -> None:
    """One setting; prints its peaks as JSON."""
    subject = load(Options(images=images))
    parts, params = subject.parts, subject.params
    sites, specs, blank = subject.quantizers(MATMUL)
    batches = [subject.normalised()[:2]]
    qparams = calibrate(parts, specs, params, batches, sites=sites, qparams=blank, chunk=1).qparams
    tokens = subject.tokens(specs, qparams, 1)
    teacher = jax.random.normal(jax.random.key(0), (images, subject.config.num_classes))
    config = paper_search(images, Case("matmul", image_chunk, 1, CHILDREN, population_chunk))
    before = peak_mib()
    next(run(*begin_search(config, parts, specs, Arrays(params, qparams, tokens, teacher))))
    cache = subject.config.depth * np.prod(tokens.shape) * 4 / 2**20
    print(json.dumps({"before": before, "peak": peak_mib(), "cache": float(cache)}))


def measure(subject: Subject, options: Options) -> list[dict[str, Any]]:
    """A row for every pair of chunks."""
    number, rows = len(subject.pixels), list[dict[str, Any]]()
    for image_chunk, population_chunk in QUICK if options.quick else CHUNKS:
        code = f"from benchmarks.memory import child; child({number}, {image_chunk}, {population_chunk})"
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
        found = json.loads(done.stdout.splitlines()[-1])
        rows.append(
            {
                "image chunk": image_chunk,
                "candidates at once": population_chunk,
                "before the search (MiB)": round(found["before"]),
                "peak (MiB)": round(found["peak"]),
                "inputs of all blocks (MiB)": round(found["cache"]),
            }
        )
    return rows


if __name__ == "__main__":
    main(__doc__, {"memory of a search with 8 children": measure})
