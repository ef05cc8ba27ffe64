"""The speed of a descent's gradients: chunk by chunk, and as one program that loops over chunks.

    python -m benchmarks.descent
    python -m benchmarks.descent --models vit_tiny_patch16_224 --images 20 --chunk 10

Weights and images are random, from a seed; the speed does not depend on them. XLA's CPU backend runs
gradients of convolutions slowly inside loops, so `gradient.chunks` has no loops. `loops` is the same gradient
with a loop over chunks and over blocks, as in a line search.
"""

import argparse
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

from benchmarks.entry import run_or_refuse
from benchmarks.families import prepare
from benchmarks.timing import interleave, timed
from evolq_jax.cli.tables import row_table
from evolq_jax.gradient import loss
from evolq_jax.gradient.chunks import value_and_gradient
from evolq_jax.gradient.problem import Data, ScaleLoss
from evolq_jax.gradient.theta import Theta, encode
from evolq_jax.network.chunks import in_chunks
from evolq_jax.pipeline.load import load_model
from evolq_jax.pipeline.watcher import Silent
from evolq_jax.typing import Array
from evolq_jax.verbs.baseline import descent_data, descent_problem
from evolq_jax.verbs.init_network import make_init


def begin(model: str, images: int, chunk: int) -> tuple[ScaleLoss, Data]:
    """A calibrated network, and the arrays of a descent from it."""
    with tempfile.TemporaryDirectory() as name:
        config = prepare(model, images, Path(name))
        config = replace(
            config, search=replace(config.search, image_chunk=chunk, batch_size=images, holdout=0.0)
        )
        setup = load_model(config)
        problem = descent_problem(setup, images)
        return problem.loss, descent_data(make_init(setup, Silent()), problem, Silent())


def row(model: str, images: int, chunk: int, repeats: int) -> dict[str, Any]:
    """Images a second: forwards, and both gradients (a loop's is run once, it may take minutes)."""
    scale_loss, data = begin(model, images, chunk)
    theta, index = encode(scale_loss, data.start), jnp.arange(images)

    @jax.jit
    def forwards(theta: Theta) -> Array:
        student = loss.straight_through_network(scale_loss, data, theta)
        one_chunk = partial(loss.straight_through_outputs, scale_loss, student)
        return in_chunks(one_chunk, data.tokens, chunk).logits

    def whole(theta: Theta) -> Array:
        return loss.straight_through_loss(scale_loss, data, theta, index)

    loops = jax.jit(jax.value_and_grad(whole))
    with patch.object(loss, "loops_are_slow", lambda blocks: False):
        tasks = {"loops": timed(lambda: loops(theta))}
    tasks["forward"] = timed(lambda: forwards(theta))
    tasks["gradient"] = timed(lambda: value_and_gradient(scale_loss, data, theta, index))
    once = interleave({"loops": tasks.pop("loops")}, 1)
    seconds = {name: float(np.median(all_)) for name, all_ in {**interleave(tasks, repeats), **once}.items()}
    return {
        "network": model,
        "images": images,
        "at once": chunk,
        "forward images/s": round(images / seconds["forward"], 1),
        "gradient images/s": round(images / seconds["gradient"], 1),
        "in loops images/s": round(images / seconds["loops"], 1),
        "times faster": round(seconds["loops"] / seconds["gradient"], 1),
    }


def main() -> None:
    """Prints a line for each network."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["resnet20_cifar10"])
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--chunk", type=int, default=50)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    rows = [row(model, args.images, args.chunk, args.repeats) for model in args.models]
    Console(width=140).print(row_table("gradients", rows[0], [row.values() for row in rows]))


if __name__ == "__main__":
    run_or_refuse(main)
