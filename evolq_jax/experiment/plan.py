"""What a search would do, before it does it: counts, memory, and time from a short measurement."""

import time
from typing import Any

import jax
import numpy as np

from evolq_jax.config import Experiment
from evolq_jax.experiment.evaluate import compute_logits
from evolq_jax.experiment.setup import Setup, load_calibration, load_evaluation, load_model
from evolq_jax.quant.spec import select
from evolq_jax.search.blockwise import num_evaluations

# Time of a candidate relative to the float forward of the blocks it runs: fake quantization costs that
# much more (measured by benchmarks/search_throughput.py; fully quantized and matmul).
OVERHEAD = {"fully_quantized": 1.6, "matmul": 1.3}


def searched_blocks(config: Experiment, setup: Setup) -> list[tuple[int, int]]:
    """(blocks of the segment, blocks after it) of every segment that has searched sites."""
    chosen = select(config.search.sites, [name for name, _ in setup.specs])
    segments = setup.model.parts.segments
    after = [sum(later.length for later in segments[i + 1 :]) for i in range(len(segments))]
    return [
        (segment.length, rest)
        for segment, rest in zip(segments, after, strict=True)
        if any(site.startswith(segment.name + "/") for site in chosen)
    ]


def num_total(config: Experiment, setup: Setup) -> int:
    """Candidates that the whole search evaluates."""
    return num_evaluations(config.search, sum(length for length, _ in searched_blocks(config, setup)))


def forward_share(config: Experiment, setup: Setup) -> float:
    """Mean share of the network that a candidate runs, thanks to the cached prefix."""
    depth = sum(segment.length for segment in setup.model.parts.segments)
    runs = [rest + n for length, rest in searched_blocks(config, setup) for n in range(1, length + 1)]
    return float(np.mean(runs)) / depth


def plan_search(config: Experiment) -> dict[str, Any]:
    """The plan of a search; reads weights and images, measures one float batch, writes nothing.

    Raises:
      UserError: as the search itself would, for weights, images and patterns.
    """
    setup = load_model(config)
    images = load_calibration(setup)
    evaluation = load_evaluation(setup)
    chosen = select(config.search.sites, [name for name, _ in setup.specs])
    image_chunk, population_chunk = config.search.chunks()
    evaluations = num_total(config, setup)
    rate = _float_rate(setup, images.pixels[: 4 * image_chunk], image_chunk)
    overhead = OVERHEAD[config.quant.scheme]
    work = evaluations * len(images.pixels) * forward_share(config, setup) * overhead
    work += config.search.passes * len(images.pixels) * overhead + len(evaluation.pixels) * (1 + 2 * overhead)
    segment = setup.model.parts.segments[0]
    block_input = [info.shape for name, info in setup.sites.items() if name.startswith(segment.name)][0]
    depth = sum(s.length for s in setup.model.parts.segments)
    prefix = depth * len(images.pixels) * int(np.prod(block_input)) * 4
    return {
        "model": setup.model.name,
        "scheme": config.quant.scheme,
        "quantized sites": len(setup.specs),
        "searched sites": ", ".join(chosen),
        "searched scales": sum(_num_scales(setup, name) for name in chosen),
        "calibration images": len(images.pixels),
        "evaluation images": len(evaluation.pixels),
        "evaluations": evaluations,
        "network share run per evaluation": round(forward_share(config, setup), 3),
        "image chunk x population chunk": f"{image_chunk} x {population_chunk}",
        "prefix cache (MiB)": round(prefix / 2**20, 1),
        "parameters (MiB)": round(sum(leaf.nbytes for leaf in jax.tree.leaves(setup.model.params)) / 2**20, 1),
        "float images per second (measured)": round(rate, 1),
        "estimated minutes": round(work / rate / 60, 1),
        "device": jax.devices()[0].device_kind,
    }


def _float_rate(setup: Setup, pixels: np.ndarray, batch: int) -> float:
    """Images per second of the float forward, compilation not counted."""
    parts, preprocessing, params = setup.model.parts, setup.model.preprocessing, setup.model.params
    compute_logits(parts, (), preprocessing, params, {}, pixels[:batch], batch)
    began = time.monotonic()
    compute_logits(parts, (), preprocessing, params, {}, pixels, batch)
    return len(pixels) / (time.monotonic() - began)


def _num_scales(setup: Setup, name: str) -> int:
    info, spec = setup.sites[name], dict(setup.specs)[name]
    return (info.depth or 1) * (info.shape[-1] if spec.per_channel else 1)
