"""Calibration's speed, relative to the float forward on the same images.

`strong` by link, and omse and ptf at every site of the official code.

python benchmarks/calibration.py
"""

import time
from typing import Any

import jax
import numpy as np

from benchmarks.command import main, num_repeats
from benchmarks.float_forward import best_task
from benchmarks.peak import forward_flops, peak_flops
from benchmarks.search_throughput import FULLY_QUANTIZED
from benchmarks.subject import Options, Subject
from benchmarks.timing import Task, count_compilations, interleave, timed
from evolq_jax.calibration.calibrate import calibrate
from evolq_jax.calibration.chain import CORRECTED, find_links, specs_after
from evolq_jax.calibration.link import State
from evolq_jax.quant.qparams import QParams
from evolq_jax.quant.scheme import QuantConfig

CHUNKS = (4, 5, 10, 20)
CHUNK = 10  # what configs have


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


def strong(subject: Subject) -> dict[str, float]:
    """Seconds of each step of `strong` on all images, and in all. Neighbouring layer links are one step."""
    sites, resolved, blank = subject.quantizers(QuantConfig())
    specs = specs_after(find_links(CORRECTED), resolved, sites)
    images, marks = subject.normalised(), list[tuple[str, float]]()

    def mark(name: str, state: State) -> None:
        jax.block_until_ready(state)
        marks.append((name, time.perf_counter()))

    began = time.perf_counter()
    given = subject.parts, specs, subject.params, [images]
    found = calibrate(*given, sites=sites, qparams=blank, chain=CORRECTED, chunk=CHUNK, on_step=mark)
    jax.block_until_ready(found)
    ended = time.perf_counter()
    starts = [began, *(at for _, at in marks)]
    seconds = {name: at - start for (name, at), start in zip(marks, starts, strict=False)}
    return seconds | {"in all": ended - began}


def measure_strong(subject: Subject, options: Options) -> list[dict[str, Any]]:
    """A row for every step of `strong`, and one for the first run, which compiles."""
    floating = best_task(subject, options)
    jax.clear_caches()
    floating()
    with count_compilations() as compilations:
        first = strong(subject)
    rounds = [(floating() * len(subject.pixels), strong(subject)) for _ in range(num_repeats(options))]

    def row(step: str, of_float: float, seconds: float, programs: int) -> dict[str, Any]:
        return {
            "step": step,
            "seconds": round(seconds, 2),
            "time / float's": round(of_float, 1),
            "programs compiled": programs,
        }

    rows = [
        row(
            step,
            float(np.median([found[step] / seconds for seconds, found in rounds])),
            float(np.median([found[step] for _, found in rounds])),
            0,
        )
        for step in first
    ]
    once = first["in all"] / rounds[0][0]
    jax.clear_caches()
    return [*rows, row("in all, first run", once, first["in all"], len(compilations.seconds))]


MEASURES = {
    "calibration: strong": measure_strong,
    "calibration: fully quantized, omse and ptf": measure,
}

if __name__ == "__main__":
    main(__doc__, MEASURES)
