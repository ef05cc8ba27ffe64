"""How scoring a population scales over devices. The compiled program says what each computes and receives.

python benchmarks/scaling.py                    virtual devices on a CPU, real ones where there are some
python benchmarks/scaling.py --quick            one device and all
python benchmarks/scaling.py --model vit_base_patch16_224

The searched block is the middle one. Virtual devices share one machine, so nothing is run on them; times are
those of real devices.
"""

import os
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from benchmarks.compiled import Work, work
from benchmarks.entry import run_or_refuse
from benchmarks.timing import timed
from evolq_jax.devices.mesh import DATA, make_mesh
from evolq_jax.devices.placement import Placement
from evolq_jax.models.registry import get_entry, param_shapes
from evolq_jax.network.chunks import largest_divisor
from evolq_jax.network.parts import ModelParts
from evolq_jax.network.point import Quantized
from evolq_jax.network.sites import list_sites
from evolq_jax.objective.objective import Teacher, make_objective
from evolq_jax.quant.qparams import QParams, blank_qparams
from evolq_jax.quant.scheme import QuantConfig, resolve
from evolq_jax.quant.sites import float_sites
from evolq_jax.quant.spec import scope
from evolq_jax.search import programs
from evolq_jax.search.population import Context
from evolq_jax.search.runner import Runner
from evolq_jax.trees import unflatten
from evolq_jax.typing import Params

VIRTUAL = 8
WHOLE = P()  # on every device


@dataclass(frozen=True)
class Options:
    """What is scaled.

    Attributes:
      model: of the registry, one with a single segment; weights are not needed.
      images: of all devices (strong scaling), or of eight of them (weak).
      population: candidates scored at once.
      image_chunk: images that run at once on a device.
      quick: one device and all of them, nothing between.
    """

    model: str = "vit_tiny_patch16_224"
    images: int = 1000
    population: int = 8
    image_chunk: int = 25
    quick: bool = False


class Case(NamedTuple):
    """One row: `mesh` as `--mesh` takes it."""

    scaling: str
    devices: int
    mesh: str
    candidates: int
    images: int


class Subject(NamedTuple):
    """A network by its shapes."""

    parts: ModelParts
    params: Params
    image: tuple[int, int, int]


def load(model: str) -> Subject:
    """The shapes of a model's parameters, and its functions."""
    entry = get_entry(model)
    shapes = param_shapes(entry.family, entry.config).items()
    params = unflatten({name: jax.ShapeDtypeStruct(shape, "float32") for name, shape in shapes})
    size = entry.preprocessing.size
    return Subject(entry.family.make(entry.config), params, (size, size, len(entry.preprocessing.mean)))


def cases(options: Options, num_devices: int) -> list[Case]:
    """Of a population along `candidate`, and of one child along `data`, on 1, 2, 4 ... devices."""
    counts = [1 << power for power in range(num_devices.bit_length())]
    counts = [counts[0], counts[-1]] if options.quick else counts
    population, images = options.population, options.images
    return [
        *(Case("strong, a population", n, f"candidate={n},data=1", population, images) for n in counts),
        *(Case("strong, one child", n, f"candidate=1,data={n}", 1, images) for n in counts),
        *(Case("weak, one child", n, f"candidate=1,data={n}", 1, images // 8 * n) for n in counts),
    ]


def lower(subject: Subject, case: Case, image_chunk: int) -> tuple[Any, tuple[Any, ...]]:
    """The scoring program for the middle block, lowered, and its arguments by their shapes."""
    parts, segment = subject.parts, subject.parts.segments[0]
    sites = list_sites(parts, subject.params, subject.image)
    specs, bits = resolve(QuantConfig("matmul", weight_bits=4), sites)
    mesh = make_mesh(case.mesh)
    placement = None if mesh is None else Placement(mesh, (case.images, 0), image_chunk)
    rows = case.images if placement is None else placement.shares[0] * placement.devices

    def on_devices(shape: tuple[int, ...], spec: P = WHOLE, dtype: str = "float32") -> jax.ShapeDtypeStruct:
        sharding = None if mesh is None else NamedSharding(mesh, spec)
        return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)

    blank = jax.eval_shape(lambda: blank_qparams(specs, bits, sites))
    qparams: QParams = jax.tree.map(lambda leaf: on_devices(leaf.shape), blank)
    local = scope(qparams, segment.name)
    candidates = jax.tree.map(lambda leaf: on_devices((case.candidates, 1, *leaf.shape[1:])), local)
    params = jax.tree.map(lambda leaf: on_devices(leaf.shape), subject.params)
    image = jax.ShapeDtypeStruct((1, *subject.image), "float32")
    token = jax.eval_shape(lambda p, x: segment.enter(p, float_sites("", {}), x), subject.params, image)
    classes = sites["head"].shape[-1]
    context: Any = Context(
        network=Quantized(params, params, qparams),
        block=on_devices((), dtype="int32"),  # type: ignore[arg-type]
        x=on_devices((segment.length, rows, *token.shape[1:]), P(None, DATA)),  # type: ignore[arg-type]
        teacher=Teacher(on_devices((case.images, classes))),  # type: ignore[arg-type]
        temperature=on_devices(()),  # type: ignore[arg-type]
    )
    runner = Runner(parts, specs, image_chunk, placement=placement)
    objective = make_objective("info_nce", batch_size=largest_divisor(case.images, 100))
    static = {"number": 0, "num_images": case.images}
    return programs.score.lower(runner, objective, context, candidates, **static), (context, candidates)


def measure(subject: Subject, case: Case, image_chunk: int) -> tuple[Work, float | None]:
    """What a device does, and the seconds of a call where devices are real."""
    lowered, arguments = lower(subject, case, image_chunk)
    compiled = lowered.compile()
    segment = subject.parts.segments[0]
    length = segment.length
    after = length - length // 2 - (1 if segment.last is None else 2)  # rounds of the loop
    done = work(compiled.as_text() or "", unknown_trips=after)
    if jax.default_backend() == "cpu":
        return done, None
    real = jax.tree.map(partial(_filled, length // 2), arguments)
    return done, min(timed(partial(compiled, *real))() for _ in range(3))


def _filled(index: int, leaf: jax.ShapeDtypeStruct) -> jax.Array:
    """An array of this shape; integers are the block's index."""
    value = np.full(leaf.shape, index if leaf.dtype == np.int32 else 0.5, leaf.dtype)
    return jnp.asarray(value) if leaf.sharding is None else jax.device_put(value, leaf.sharding)


def row(case: Case, done: Work, seconds: float | None, alone: Work) -> dict[str, Any]:
    """Efficiency is the work of one device, over that of each of them times how many share it."""
    shared = case.devices if case.scaling.startswith("strong") else 1
    return {
        "scaling": case.scaling,
        "devices": case.devices,
        "mesh": case.mesh,
        "candidates": case.candidates,
        "images": case.images,
        "GFLOP a device": round(done.flops / 1e9, 1),
        "efficiency": round(alone.flops / (shared * done.flops), 3),
        "collectives": ", ".join(f"{count} {kind}" for kind, count in sorted(done.counts.items())) or "none",
        "received MB a device": round(sum(done.received.values()) / 1e6, 3),
        "largest MB": round(done.largest / 1e6, 3),
        "seconds": "" if seconds is None else round(seconds, 4),
    }


def table(rows: list[dict[str, Any]]) -> str:
    """In Markdown."""
    lines = [list(rows[0]), ["---"] * len(rows[0]), *([str(v) for v in found.values()] for found in rows)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def main(options: Options) -> None:
    """Prints the table."""
    if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        jax.config.update("jax_num_cpu_devices", VIRTUAL)  # of no meaning for other backends
    subject, rows, alone = load(options.model), list[dict[str, Any]](), dict[str, Work]()
    with jax.default_matmul_precision("float32"):
        for case in cases(options, jax.device_count()):
            done, seconds = measure(subject, case, options.image_chunk)
            rows.append(row(case, done, seconds, alone.setdefault(case.scaling, done)))
    print(f"{options.model}, {jax.device_count()} × {jax.devices()[0].device_kind}, jax {jax.__version__}\n")
    print(table(rows))


if __name__ == "__main__":
    run_or_refuse(lambda: main(tyro.cli(Options, description=__doc__)))
