"""The speed of a plane: grid points times images per second, relative to the float forward pass.

    python benchmarks/landscape.py

Small planes over the weight scales of all blocks, and of the last half. A point that moves block b and later
blocks runs only these. The time to compute the cached prefix is included; compilation is not.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.command import main, num_repeats
from benchmarks.float_forward import best_task
from benchmarks.search_throughput import SCHEMES
from benchmarks.subject import Options, Subject
from benchmarks.timing import Task, interleave, timed
from evolq_jax.calibration.calibrate import calibrate
from evolq_jax.devices.mesh import make_mesh
from evolq_jax.landscape.config import LOSSES, LandscapeConfig
from evolq_jax.landscape.directions import keep_blocks, random_directions
from evolq_jax.landscape.grid import Grid, make_grid
from evolq_jax.landscape.losses import make_losses
from evolq_jax.landscape.scan import Ground, Program, scan
from evolq_jax.network.network import Network
from evolq_jax.objective.objective import Teacher
from evolq_jax.quant.spec import select
from evolq_jax.quantized.logits import compute_logits

SITES = ("*/attn/*/weight", "*/mlp/*/weight")


class Case(NamedTuple):
    """One row's setting; `first_block` is the first that moves, as a share of the depth."""

    scheme: str
    image_chunk: int
    point_chunk: int = 1
    first_block: float = 0.0


CASES = (
    *(Case("matmul", chunk) for chunk in (4, 5, 10, 20)),
    Case("matmul", 5, 4),
    Case("matmul", 5, first_block=0.5),
    Case("fully_quantized", 5),
)
QUICK = (Case("matmul", 5), Case("matmul", 5, first_block=0.5))


def plane(subject: Subject, case: Case, points: int) -> tuple[Task, Grid]:
    """Seconds of a whole plane of `points` × `points`, compiled now."""
    parts, params, pixels = subject.parts, subject.params, subject.pixels
    sites, specs, blank = subject.quantizers(SCHEMES[case.scheme])
    qparams = calibrate(parts, specs, params, [subject.normalised()[:10]], sites=sites, qparams=blank).qparams
    teacher = compute_logits(Network(parts, params, subject.preprocessing), np.asarray(pixels), 10)
    moving = select(SITES, [name for name, spec in specs if spec.has_scale])
    depth = subject.config.depth
    blocks = tuple(range(int(case.first_block * depth), depth))
    config = LandscapeConfig(kind="plane", points=points, blocks=blocks)
    origin = {site: qparams[site] for site in moving}
    key = jax.random.key(0)
    directions = random_directions(parts, origin, key, name="gaussian", count=2, epsilon=config.epsilon)
    directions = keep_blocks(parts, directions, blocks)
    losses = make_losses(LOSSES, batch_size=len(pixels), with_labels=False)
    chunks = {"image_chunk": case.image_chunk, "point_chunk": case.point_chunk}
    program = Program(parts, specs, subject.preprocessing, losses, (True, True), **chunks)
    temperatures = jnp.asarray(config.temperatures)
    ground = Ground(params, qparams, directions, Teacher(jnp.asarray(teacher)), None, temperatures)
    grid = make_grid(config, parts, moving, 2)
    return timed(partial(_whole, program, ground, grid, pixels)), grid


def _whole(program: Program, ground: Ground, grid: Grid, pixels: jax.Array) -> list[np.ndarray]:
    return [losses for _, losses in scan(program, ground, grid, pixels, mesh=make_mesh())]


def row(subject: Subject, case: Case, points: int, float_forward: Task, repeats: int) -> dict[str, Any]:
    """The float forward and a plane in turn."""
    task, grid = plane(subject, case, points)
    seconds = interleave({"float": float_forward, "plane": task}, repeats)
    images = len(grid.starts) * len(subject.pixels)
    ratios = images * np.array(seconds["float"]) / np.array(seconds["plane"])
    return {
        "scheme": case.scheme,
        "image chunk": case.image_chunk,
        "points at once": case.point_chunk,
        "first block": grid.starts[0].block,
        "point-images/s": round(images / float(np.median(seconds["plane"])), 1),
        "float images/s": round(1 / float(np.median(seconds["float"])), 1),
        "ratio": round(float(np.median(ratios)), 2),
    }


def measure(subject: Subject, options: Options) -> list[dict[str, Any]]:
    """A row for every case."""
    float_forward, repeats = best_task(subject, options), num_repeats(options)
    cases, points = (QUICK, 3) if options.quick else (CASES, 4)
    return [row(subject, case, points, float_forward, repeats) for case in cases]


if __name__ == "__main__":
    main(__doc__, {"landscape: a plane": measure})
