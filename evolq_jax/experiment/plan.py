"""What a search would do, before it does it: counts, memory, and time from a short measurement."""

import math
import sys
import time
from typing import Any

import jax
import numpy as np

from evolq_jax.calibration.compensation import LINKS
from evolq_jax.config import Experiment
from evolq_jax.experiment.evaluate import compute_logits
from evolq_jax.experiment.images import count_calibration, count_evaluation
from evolq_jax.experiment.setup import (
    Setup,
    check_search,
    exact_matmul,
    load_model,
    search_spaces,
    searched_sites,
)
from evolq_jax.models.checkpoint import LoadedModel
from evolq_jax.quant.sites import float_sites
from evolq_jax.search.config import num_evaluations
from evolq_jax.search.evaluate import block_inputs
from evolq_jax.typing import Array, Params

try:
    import resource
except ImportError:  # Windows
    resource = None

# Time of a candidate relative to the float forward of the blocks it runs: fake quantization costs that
# much more (ViT-Tiny on CPU).
OVERHEAD = {"fully_quantized": 1.15, "matmul": 1.05}
INTEGER_LAYER_NORM = 1.2  # times that
WALK = 20  # forward passes for each image that the layer-wise links take, measured on ViT-Tiny
# Compiling all that a search runs, relative to compiling the float forward.
PROGRAMS = 12
MIB = 2**20


def plan_search(config: Experiment) -> dict[str, Any]:
    """The plan of a search: reads weights, lists images, times a float batch, writes nothing.

    Returns:
      Counts, sizes in MiB and seconds, by name; time and memory are estimates.

    Raises:
      UserError: as the search itself would, for weights, images and patterns.
    """
    with exact_matmul():
        setup = load_model(config)
        check_search(setup)
        images, evaluation = count_calibration(setup, for_search=True), count_evaluation(setup)
        compiling, rate = float_speed(setup, config.search.chunks()[0])
    image_chunk, population_chunk = config.search.chunks()
    seconds = _work(setup, images, evaluation) / rate + PROGRAMS * compiling
    return {
        "model": setup.model.name,
        "scheme": f"{config.quant.scheme} W{config.quant.weight_bits}A{config.quant.activation_bits}",
        "quantized_sites": len(setup.specs),
        "searched_sites": ", ".join(searched_sites(setup)),
        "searched_scales": sum(_num_searched(setup, name) for name in searched_sites(setup)),
        "calibration_images": images,
        "evaluation_images": evaluation,
        "evaluations": _expected_evaluations(setup, images),
        "network_share_per_evaluation": round(network_share(setup), 3),
        "image_chunk": image_chunk,
        "population_chunk": population_chunk,
        "float_images_per_second": round(rate, 1),
        "estimated_seconds": round(seconds, 1),
        "estimated_memory_mib": round((process_bytes() + sum(memory(setup, images).values())) / MIB),
        "device": jax.devices()[0].device_kind,
    }


def searched_blocks(setup: Setup) -> list[tuple[int, int]]:
    """(blocks of the segment, blocks after it) of every segment that has searched sites."""
    chosen, segments = searched_sites(setup), setup.model.parts.segments
    after = [sum(later.length for later in segments[i + 1 :]) for i in range(len(segments))]
    return [
        (segment.length, rest)
        for segment, rest in zip(segments, after, strict=True)
        if any(site.startswith(segment.name + "/") for site in chosen)
    ]


def num_total(setup: Setup) -> int:
    """Candidates that the whole search evaluates."""
    search, num_visits, coordinates = setup.config.search, 0, 0
    for segment in setup.model.parts.segments:
        inside = [name for name in searched_sites(setup) if name.startswith(segment.name + "/")]
        if inside:
            size, firsts = search.visits(segment.length)
            num_visits += len(firsts)
            in_block = sum(_num_searched(setup, name) for name in inside) // segment.length
            coordinates += len(firsts) * size * in_block
    return num_evaluations(search, num_visits, coordinates)


def _expected_evaluations(setup: Setup, num_images: int) -> int:
    """Candidates of the whole search; with a budget about as many as it allows."""
    search = setup.config.search
    if search.budget is None:
        return num_total(setup)
    searched = num_images - search.num_held_out(num_images)
    return round(search.budget / (searched * network_share(setup)))


def network_share(setup: Setup) -> float:
    """Mean share of the network that a candidate runs, thanks to the cached prefix."""
    depth = sum(segment.length for segment in setup.model.parts.segments)
    visits = setup.config.search.visits
    runs = [rest + length - n for length, rest in searched_blocks(setup) for n in visits(length)[1]]
    return float(np.mean(runs)) / depth


def memory(setup: Setup, num_images: int) -> dict[str, int]:
    """What a search holds on the device at once, in bytes, by what it is for."""
    image_chunk, population_chunk = setup.config.search.chunks()
    weights = sum(leaf.nbytes for leaf in jax.tree.leaves(setup.model.params))
    names = [segment.name + "/" for segment in setup.model.parts.segments]
    blocks = [[info for name, info in setup.sites.items() if name.startswith(prefix)] for prefix in names]
    activations = max(
        sum(4 * math.prod(info.shape) for info in block if not info.is_weight) for block in blocks
    )
    size, channels = setup.model.preprocessing.size, len(setup.model.preprocessing.mean)
    return {
        "parameters, float and quantized": 2 * weights,
        "calibration images, as bytes and normalised": 5 * num_images * size * size * channels,
        "inputs of every block": num_images * _input_bytes(setup.model),
        "activations of one block": image_chunk * population_chunk * activations,
    }


def _input_bytes(model: LoadedModel) -> int:
    """The inputs of all blocks for one image."""
    parts, size = model.parts, model.preprocessing.size

    def inputs(params: Params, image: Array) -> dict[str, Array]:
        tokens = parts.segments[0].enter(params, float_sites("", {}), image)
        return block_inputs(parts, float_sites, 1, params, {}, tokens)

    image = jax.ShapeDtypeStruct((1, size, size, len(model.preprocessing.mean)), "float32")
    return sum(4 * leaf.size for leaf in jax.tree.leaves(jax.eval_shape(inputs, model.params, image)))


def process_bytes() -> int:
    """What this process has held at most: on a CPU, interpreter and compiler share the memory with arrays."""
    if resource is None or jax.default_backend() != "cpu":
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _work(setup: Setup, num_images: int, num_evaluation: int) -> float:
    """The whole run's work, counted in images through the float network."""
    search, quant = setup.config.search, setup.config.quant
    overhead = OVERHEAD[quant.scheme] * (INTEGER_LAYER_NORM if quant.integer_layer_norm else 1.0)
    searched = num_images - search.num_held_out(num_images)
    candidates = _expected_evaluations(setup, num_images) * searched * network_share(setup)
    caches = search.passes * num_images if search.budget is None else 0  # the budget pays for them
    calibration_and_teacher = 2 * num_images
    if set(setup.config.calibration.chain) & set(LINKS):
        calibration_and_teacher += WALK * num_images
    return overhead * (candidates + caches + 2 * num_evaluation) + num_evaluation + calibration_and_teacher


def float_speed(setup: Setup, batch: int) -> tuple[float, float]:
    """Seconds to compile the float forward, and the images it then does in a second."""
    parts, preprocessing, params = setup.model.parts, setup.model.preprocessing, setup.model.params
    shape = (4 * batch, preprocessing.size, preprocessing.size, len(preprocessing.mean))
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)

    def seconds(pixels: np.ndarray) -> float:
        began = time.monotonic()
        compute_logits(parts, (), preprocessing, params, {}, pixels, batch)
        return time.monotonic() - began

    first, run = seconds(pixels[:batch]), seconds(pixels)
    return max(first - run / 4, 0.0), len(pixels) / run


def _num_searched(setup: Setup, name: str) -> int:
    """Numbers that the search varies at a site, over all blocks."""
    info, spec = setup.sites[name], dict(setup.specs)[name]
    segment, site = name.split("/", 1)
    channels = info.shape[-1] if spec.per_channel else 1
    return (info.depth or 1) * search_spaces(setup)[segment].num_coordinates(site, channels)
