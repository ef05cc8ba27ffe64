"""The speed of products of integers: each carrier beside the float network, fake quantization and the model.

python -m benchmarks.integer_products

Weights are of 4 bits, and numbers are not calibrated: they do not matter for the time.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, get_args

import jax
import numpy as np

from benchmarks.command import main, num_repeats
from benchmarks.subject import MODEL, Options, Subject
from benchmarks.timing import Task, interleave, timed
from evolq_jax.integers.build import integer_model
from evolq_jax.integers.carriers import Carrier
from evolq_jax.integers.products import integer_products
from evolq_jax.network.network import Network
from evolq_jax.quant.scheme import QuantConfig
from evolq_jax.quantized.network import QuantizedNetwork
from evolq_jax.typing import Array

BATCHES = (1, 10)


def ways(subject: Subject) -> dict[str, Callable[[Array], Array]]:
    """Functions from images to logits, by what they multiply."""
    _, specs, qparams = subject.quantizers(QuantConfig("deploy"))
    network = Network(subject.parts, subject.params, subject.preprocessing, MODEL, subject.config)
    quantized = QuantizedNetwork(network, subject.params, qparams, specs)
    model = integer_model(quantized)
    carriers = {f"integers in {name}": integer_products(model, name) for name in get_args(Carrier)}
    return {"float": network, "fake quantization": quantized, "decoded codes": model, **carriers}


def measure(subject: Subject, options: Options) -> list[dict[str, Any]]:
    """A row for every way and batch."""
    runs, repeats = ways(subject), 7 * num_repeats(options)
    rows: list[dict[str, Any]] = []
    for batch in BATCHES:
        images = subject.pixels[:batch]
        tasks: dict[str, Task] = {name: timed(partial(run, images)) for name, run in runs.items()}
        found = interleave(tasks, repeats)
        seconds = {name: float(np.median(values)) / batch for name, values in found.items()}
        rows += [
            {
                "images at once": batch,
                "products": name,
                "ms/image": round(1e3 * value, 2),
                "× float": round(value / seconds["float"], 2),
            }
            for name, value in seconds.items()
        ]
    return rows


if __name__ == "__main__":
    main(__doc__, {f"products of integers, {jax.default_backend()}": measure})
