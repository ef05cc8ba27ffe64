"""The speed of the float network. Everything else is compared with it.

python benchmarks/float_forward.py
"""

from functools import partial
from typing import Any

import jax
import numpy as np

from benchmarks.command import main, num_repeats
from benchmarks.peak import forward_flops, peak_flops
from benchmarks.subject import Options, Subject
from benchmarks.timing import Task, interleave, timed
from evolq_jax.network.parts import ModelParts
from evolq_jax.network.reading import float_reading
from evolq_jax.network.walk import whole_logits
from evolq_jax.typing import Array, Params

CHUNKS = (4, 5, 8, 10, 20, 25, 50)


@partial(jax.jit, static_argnames=("parts",))
def _logits(parts: ModelParts, params: Params, chunks: Array) -> Array:
    return jax.lax.map(lambda images: whole_logits(parts, float_reading(params), images), chunks)


def seconds_per_image(subject: Subject, chunk: int) -> Task:
    """The float forward on all images that fill whole chunks; gives seconds per image."""
    images = subject.normalised()
    number = len(images) // chunk * chunk
    chunks = images[:number].reshape(-1, chunk, *images.shape[1:])
    task = timed(lambda: _logits(subject.parts, subject.params, chunks))
    return lambda: task() / number


def rates(subject: Subject, options: Options) -> dict[int, float]:
    """Images a second by chunk."""
    chunks = [chunk for chunk in CHUNKS if chunk <= len(subject.pixels)]
    tasks = {chunk: seconds_per_image(subject, chunk) for chunk in chunks}
    seconds = interleave(tasks, max(3, num_repeats(options)))
    return {chunk: 1 / float(np.median(values)) for chunk, values in seconds.items()}


def best_task(subject: Subject, options: Options) -> Task:
    """The float forward at its own best chunk; gives seconds per image."""
    found = rates(subject, options)
    return seconds_per_image(subject, max(found, key=lambda chunk: found[chunk]))


def measure(subject: Subject, options: Options) -> list[dict[str, Any]]:
    """A row for every chunk."""
    peak = peak_flops()
    return [
        {
            "image chunk": chunk,
            "images/s": round(rate, 1),
            "share of peak": round(rate * forward_flops(subject.config) / peak, 3),
        }
        for chunk, rate in rates(subject, options).items()
    ]


if __name__ == "__main__":
    main(__doc__, {"float forward": measure})
