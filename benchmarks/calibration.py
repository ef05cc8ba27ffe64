"""Calibration's speed: omse and ptf at every site of the official code, relative to the float forward.

python benchmarks/calibration.py
"""

from typing import Any

import jax
import numpy as np

from benchmarks.command import main, num_repeats
from benchmarks.float_forward import best_task
from benchmarks.peak import forward_flops, peak_flops
from benchmarks.search_throughput import FULLY_QUANTIZED
from benchmarks.subject import Options, Subject
from benchmarks.timing import Task, interleave, timed
from evolq_jax.calibration.calibrate import calibrate
from evolq_jax.quant.qparams import QParams

CHUNKS = (4, 5, 10, 20)


def whole(subject: Subject, chunk: int) -> Task:
    """Calibration on all images; gives seconds per image."""
    images = subject.normalised()
    sites, specs, blank = subject.quantizers(FULLY_QUANTIZED)

    def run() -> QParams:
        found = calibrate(
            subject.parts, specs, subject.params, [images], sites=sites, qparams=blank, chunk=chunk
        )
        return found.qparams

    task = timed(run)
    return lambda: task() / len(images)


def measure(subject: Subject, options: Options) -> list[dict[str, Any]]:
    """A row for every chunk."""
    chunks = CHUNKS[1:3] if options.quick else CHUNKS
    tasks = {"float": best_task(subject, options)} | {chunk: whole(subject, chunk) for chunk in chunks}
    seconds = interleave(tasks, num_repeats(options))
    flops, peak = (
        2 * forward_flops(subject.config, whole=True),
        peak_flops(),
    )  # ranges first, then their scores
    rows: list[dict[str, Any]] = []
    for chunk in chunks:
        per_image = float(np.median(seconds[chunk]))
        rows.append(
            {
                "image chunk": chunk,
                "images/s": round(1 / per_image, 2),
                "float images/s": round(1 / float(np.median(seconds["float"])), 1),
                "time / float's": round(
                    float(np.median(np.array(seconds[chunk]) / np.array(seconds["float"]))), 2
                ),
                "share of peak": round(flops / per_image / peak, 3),
            }
        )
    jax.clear_caches()
    return rows


if __name__ == "__main__":
    main(__doc__, {"calibration: fully quantized, omse and ptf": measure})
