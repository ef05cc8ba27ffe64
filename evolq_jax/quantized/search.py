"""From a quantized network to one at better scales, and what a search needs for it."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from evolq_jax.devices.ahead import compile_ahead, shapes_of
from evolq_jax.devices.mesh import DATA, replicate, spread
from evolq_jax.devices.placement import Placement
from evolq_jax.devices.precision import matmul_precision
from evolq_jax.network.chunks import largest_divisor
from evolq_jax.network.network import Network
from evolq_jax.network.parts import ModelParts
from evolq_jax.network.point import at_qparams, quantize_weights
from evolq_jax.network.reading import quantized_reading
from evolq_jax.network.walk import embed
from evolq_jax.objective.objective import Teacher
from evolq_jax.quant.qparams import QParams
from evolq_jax.quant.spec import Specs
from evolq_jax.quantized.calibrate import pixels_of
from evolq_jax.quantized.logits import compute_logits
from evolq_jax.quantized.network import QuantizedNetwork
from evolq_jax.search.ahead import compile_search
from evolq_jax.search.config import SearchConfig, TeacherKind
from evolq_jax.search.driver import run
from evolq_jax.search.problem import Data, Problem, make_data, make_problem
from evolq_jax.search.state import Generation, SearchEnd, init
from evolq_jax.typing import Array, Images, Params, Preprocessing, Progress, no_progress


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
    params, qparams = replicate(mesh, (quantized.params, quantized.qparams))
    on_devices = jax.device_put(pixels) if placement is None else placement.put(pixels)
    entry = _Entry(network.parts, specs, network.preprocessing, chunk, mesh)
    return _entered(entry, at_qparams(specs, params, qparams).quantized, qparams, on_devices)


class _Entry(NamedTuple):
    """The static settings of the program that runs images up to the first block."""

    parts: ModelParts
    specs: Specs
    preprocessing: Preprocessing
    chunk: int
    mesh: Mesh | None


@partial(jax.jit, static_argnames=("entry",))
def _entered(entry: _Entry, quantized: Params, qparams: QParams, pixels: Array) -> Array:
    def on_device(quantized: Params, qparams: QParams, pixels: Array) -> Array:
        reading = quantized_reading(entry.specs, quantized, qparams)
        return embed(entry.parts, reading, pixels, preprocessing=entry.preprocessing, chunk=entry.chunk)

    return spread(entry.mesh, on_device, (P(), P(), P(DATA)), P(DATA))(quantized, qparams, pixels)


def compile_search_ahead(
    network: Network, specs: Specs, qparams: QParams, config: SearchConfig, *, num_images: int
) -> None:
    """Begins to compile what a search on one device runs, before calibration has found its scales.

    Args:
      network: the float network. The chain must not add parameters to it.
      specs: its quantizers after the chain.
      qparams: their numbers, of which only shapes count.
      config: settings of the search.
      num_images: for calibration.
    """
    if config.has_features:  # the teacher's are not known yet
        return
    problem = make_problem(config, network.parts, specs, qparams, num_images=num_images)
    pixels = jax.ShapeDtypeStruct((num_images, *network.image_shape), np.uint8)
    entry = _Entry(network.parts, specs, network.preprocessing, problem.runner.image_chunk, None)
    params, own = shapes_of((network.params, qparams))
    tokens: Any = jax.eval_shape(partial(_entered, entry), params, own, pixels)
    logits: Any = jax.ShapeDtypeStruct((num_images, network.num_classes), np.float32)
    data = jax.eval_shape(partial(make_data, problem), params, tokens, Teacher(logits))
    state = init(problem, qparams, jax.random.key(0))
    compile_ahead(
        partial(_entered.lower, entry, params, own, pixels),
        partial(quantize_weights.lower, specs, params, own),
    )
    compile_search(problem, data, state)


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
