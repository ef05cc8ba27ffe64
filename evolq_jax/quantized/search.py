"""From a quantized network to one at better scales, and what a search needs for it."""

from collections.abc import Callable
from dataclasses import replace

import jax
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from evolq_jax.devices.mesh import DATA, replicate, spread
from evolq_jax.devices.placement import Placement
from evolq_jax.devices.precision import matmul_precision
from evolq_jax.network.chunks import largest_divisor
from evolq_jax.network.point import at_qparams
from evolq_jax.network.reading import quantized_reading
from evolq_jax.network.walk import embed
from evolq_jax.objective.objective import Teacher
from evolq_jax.quant.qparams import QParams
from evolq_jax.quantized.calibrate import pixels_of
from evolq_jax.quantized.logits import compute_logits
from evolq_jax.quantized.network import QuantizedNetwork
from evolq_jax.search.config import SearchConfig, TeacherKind
from evolq_jax.search.driver import run
from evolq_jax.search.problem import Data, Problem, make_data, make_problem
from evolq_jax.search.state import Generation, SearchEnd, init
from evolq_jax.typing import Array, Images, Params, Progress, no_progress


def teacher_outputs(
    quantized: QuantizedNetwork,
    pixels: np.ndarray,
    kind: TeacherKind = "float",
    *,
    features: bool = False,
    batch_size: int = 10,
    mesh: Mesh | None = None,
    stage: Callable[[str], Progress] = lambda name: no_progress,
) -> Teacher:
    """What searches and descents imitate on B images: the float network, or the released code's variant.

    Args:
      quantized: the network; its float network is the teacher.
      pixels: uint8 images [B, height, width, channels].
      kind: `float`, or `integer_layer_norm` for the released code's variant.
      features: whether a term of the fitness reads the features.
      batch_size: images that run at once, on each device of a mesh.
      mesh: devices that share each batch; None: one.
      stage: gives, for the name of a step, what is told its progress.
    """
    integer = kind == "integer_layer_norm"

    def outputs(name: str, features: bool) -> Array:
        found = compute_logits(
            quantized if integer else quantized.network,
            pixels,
            batch_size,
            integer_norm_only=integer,
            features=features,
            mesh=mesh,
            progress=stage(name),
        )
        return jax.device_put(found)

    logits = outputs("computing the teacher", False)
    return Teacher(logits, outputs("computing the teacher's features", True) if features else None)


def entry_tokens(
    quantized: QuantizedNetwork, pixels: np.ndarray, chunk: int, placement: Placement | None = None
) -> Array:
    """Images at the first block's input, quantized [B, ...]; `chunk` of them run at once.

    With a placement they lie on the devices as it says.
    """
    network, specs = quantized.network, quantized.specs
    mesh = None if placement is None else placement.mesh

    def entered(params: Params, qparams: QParams, pixels: Array) -> Array:
        reading = quantized_reading(specs, params, qparams)
        return embed(network.parts, reading, pixels, preprocessing=network.preprocessing, chunk=chunk)

    enter = jax.jit(spread(mesh, entered, (P(), P(), P(DATA)), P(DATA)))
    params, qparams = replicate(mesh, (quantized.params, quantized.qparams))
    on_devices = jax.device_put(pixels) if placement is None else placement.put(pixels)
    return enter(at_qparams(specs, params, qparams).quantized, qparams, on_devices)


def search_problem(
    quantized: QuantizedNetwork,
    pixels: np.ndarray,
    config: SearchConfig,
    teacher: Teacher,
    *,
    mesh: Mesh | None = None,
) -> tuple[Problem, Data]:
    """What `evolq_jax.search.driver.run` takes beside a state.

    Args:
      quantized: where to start.
      pixels: calibration images, uint8 [B, height, width, channels].
      config: settings.
      teacher: what is imitated, on the same images.
      mesh: devices that share candidates and images; None: one.

    Raises:
      UserError: as `evolq_jax.search.problem.make_problem`.
    """
    problem = make_problem(
        config,
        quantized.network.parts,
        quantized.specs,
        quantized.qparams,
        num_images=len(pixels),
        mesh=mesh,
    )
    chunk, placement = problem.runner.image_chunk, problem.runner.placement
    return problem, make_data(
        problem, quantized.params, entry_tokens(quantized, pixels, chunk, placement), teacher
    )


def fitted(search: SearchConfig, num_images: int) -> SearchConfig:
    """The settings with a batch that divides so many images, up to the one that they ask for."""
    if search.batch_size is None:
        return search.fitted(num_images)
    return replace(search, batch_size=largest_divisor(num_images, search.batch_size))


def evolve(
    quantized: QuantizedNetwork,
    images: Images | np.ndarray | Array,
    config: SearchConfig | None = None,
    *,
    key: Array,
    mesh: Mesh | None = None,
    on_generation: Callable[[Generation], None] = lambda record: None,
) -> QuantizedNetwork:
    """Searches better scales, block by block from the last to the first.

    A move is kept only if it makes the fitness better on the images that candidates are scored on and, with a
    `holdout`, on the others too.

    Args:
      quantized: where to start.
      images: calibration images, uint8; labels play no part. Contrastive batches shrink to a divisor of their
        number.
      config: settings; None: `SearchConfig()`.
      key: PRNG key; consumed.
      mesh: devices that share candidates and images; None: one.
      on_generation: told of every generation.

    Raises:
      UserError: a site pattern, the algorithm or the fitness is unknown, or there are too few images to hold
        some out.
    """
    network, pixels = quantized.network, pixels_of(images)
    config = fitted(config or SearchConfig(), len(pixels))
    with matmul_precision(network.precision):
        chunk, _ = config.chunks()
        teacher = teacher_outputs(
            quantized, pixels, config.teacher, features=config.has_features, batch_size=chunk, mesh=mesh
        )
        problem, data = search_problem(quantized, pixels, config, teacher, mesh=mesh)
        for record in run(problem, data, init(problem, quantized.qparams, key)):
            if isinstance(record, Generation):
                on_generation(record)
            elif isinstance(record, SearchEnd):
                quantized = replace(quantized, qparams=record.qparams)
    return quantized
