"""The plan of a search: counts and memory, and the time by a short measurement."""

import math
from dataclasses import dataclass
from time import monotonic
from typing import Literal

import jax
import numpy as np

from evolq_jax.calibration.chain import chain_cost
from evolq_jax.config.experiment import Experiment
from evolq_jax.devices.memory import DEVICE, limit_bytes, usual_bytes
from evolq_jax.devices.mesh import mesh_text
from evolq_jax.devices.precision import matmul_precision
from evolq_jax.errors import UserError
from evolq_jax.pipeline.cost import fit_memory
from evolq_jax.pipeline.held import MIB, held, most, search_programs
from evolq_jax.pipeline.images import count_calibration, count_evaluation
from evolq_jax.pipeline.load import Setup, load_model
from evolq_jax.pipeline.searched import check_search, search_spaces, searched_sites
from evolq_jax.pipeline.speed import Speed, measure_speed
from evolq_jax.pipeline.work import Traced, trace
from evolq_jax.search.budget import num_evaluations
from evolq_jax.search.halving import image_counts
from evolq_jax.verbs.init_network import check_start

INPUTS = {
    "float32": "cached in float32",
    "bfloat16": "cached in bfloat16",
    "recompute": "recomputed",
}  # by `search.prefixes`


@dataclass(frozen=True, kw_only=True)
class SearchPlan:
    """What a search would do. Time and memory are estimates.

    Attributes:
      model: its name in the registry.
      network: its sizes and options.
      preprocessing: how images are prepared for it.
      scheme: of quantization, with its bits.
      quantized_sites: the number of sites that are quantized.
      searched_sites: the names of those whose scales are searched.
      searched_scales: the number of numbers that the search varies.
      calibration_images: the number of images used.
      evaluation_images: the number of images scored at the end.
      evaluations: the number of candidates scored.
      network_share_per_evaluation: mean share of the blocks that a candidate runs.
      image_chunk: images that run at once.
      population_chunk: candidates that run at once.
      block_inputs: how the inputs of blocks are kept.
      memory_limit: how much memory the search may take.
      float_images_per_second: the measured speed of the float network.
      added_parameters: the number of parameters that the chain adds to the network.
      estimated_seconds: the time of the whole run.
      estimated_memory_mib: the memory of the process, and of its arrays on the device.
      device: its kind.
      mesh: as `--mesh` takes it.
    """

    kind: Literal["search plan"] = "search plan"
    model: str
    network: str
    preprocessing: str
    scheme: str
    quantized_sites: int
    searched_sites: tuple[str, ...]
    searched_scales: int
    calibration_images: int
    evaluation_images: int
    evaluations: int
    network_share_per_evaluation: float
    image_chunk: int
    population_chunk: int
    block_inputs: str
    memory_limit: str
    float_images_per_second: float
    added_parameters: int
    estimated_seconds: float
    estimated_memory_mib: int
    device: str
    mesh: str


def plan_search(config: Experiment) -> SearchPlan:
    """Plans a search. Reads the weights, lists the images, times a float batch, and writes nothing.

    Raises:
      UserError: the weights, the images or a pattern is wrong, as for the search itself.
    """
    with matmul_precision(config.precision):
        began = monotonic()
        setup = load_model(config)
        loading = monotonic() - began
        check_search(setup)
        check_start(setup)
        images, evaluation = count_calibration(setup, for_search=True), count_evaluation(setup)
        check_budget(setup, images)
        setup = fit_memory(setup, images)
        config = setup.config
        traced, speed = trace(setup, images), measure_speed(setup, config.search.chunks()[0])
    image_chunk, population_chunk = config.search.chunks()
    num_devices = 1 if setup.mesh is None else setup.mesh.size
    programs = (*traced.calibration.programs, *search_programs(setup, traced.quantized))
    running = _running(setup, images, evaluation, traced=traced, speed=speed)
    seconds = loading + running / num_devices + speed.seconds_to_compile(programs)
    return SearchPlan(
        model=setup.model.name,
        network=setup.model.described,
        preprocessing=str(setup.model.preprocessing),
        scheme=f"{config.quant.scheme} W{config.quant.weight_bits}A{config.quant.activation_bits}",
        quantized_sites=len(setup.specs),
        searched_sites=searched_sites(setup),
        searched_scales=sum(_num_searched(setup, name) for name in searched_sites(setup)),
        calibration_images=images,
        evaluation_images=evaluation,
        evaluations=_expected_evaluations(setup, images),
        network_share_per_evaluation=round(network_share(setup), 3),
        image_chunk=image_chunk,
        population_chunk=population_chunk,
        block_inputs=INPUTS[config.search.prefixes],
        memory_limit=_limit(config.memory),
        float_images_per_second=round(speed.floating, 1),
        added_parameters=setup.added_parameters,
        estimated_seconds=round(seconds, 1),
        estimated_memory_mib=round(most(held(setup, images, traced)) / MIB),
        device=jax.devices()[0].device_kind,
        mesh=mesh_text(setup.mesh),
    )


def _limit(memory: str | None) -> str:
    """The memory limit for people. If it is the device's own, it says how much that is."""
    usual = usual_bytes()
    if memory is None and usual is not None:
        return f"half of the device, {usual / MIB:,.0f} MiB"
    return f"{memory}, {limit_bytes(memory) / MIB:,.0f} MiB" if memory == DEVICE else memory or "none"


def searched_blocks(setup: Setup) -> list[tuple[int, int]]:
    """For every segment with searched sites: the number of its blocks, and of the blocks after it."""
    chosen, segments = searched_sites(setup), setup.model.parts.segments
    after = [sum(later.length for later in segments[i + 1 :]) for i in range(len(segments))]
    return [
        (segment.length, rest)
        for segment, rest in zip(segments, after, strict=True)
        if any(site.startswith(segment.name + "/") for site in chosen)
    ]


def num_total(setup: Setup) -> int:
    """The number of candidates that the whole search scores, if no budget ends it."""
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
    """The number of candidates that the search scores. With a budget, about as many as it pays for."""
    search = setup.config.search
    if search.budget is None:
        return num_total(setup)
    searched = num_images - search.num_held_out(num_images)
    return round(search.budget / (searched * network_share(setup)))


def budget_of_search(setup: Setup, num_images: int) -> float:
    """The candidate-images that the search spends: its budget, or about the cost of its passes."""
    search = setup.config.search
    if search.budget is not None:
        return search.budget
    searched = num_images - search.num_held_out(num_images)
    return num_total(setup) * searched * network_share(setup) + search.passes * num_images


def check_budget(setup: Setup, num_images: int) -> None:
    """Refuses a budget that is spent before the first generation is over, and too many stages of halving.

    Raises:
      UserError: it is, or there are.
    """
    search = setup.config.search.fitted(num_images)
    image_counts(search.halving, num_images - search.num_held_out(num_images), search.batch_size or 1)
    budget, needed = search.budget, math.ceil(_least_budget(setup, num_images))
    if budget is not None and budget < needed:
        raise UserError(
            f"search.budget {budget} is below the {needed} candidate-images of the blocks' inputs, the start "
            "and one generation: raise it, or take fewer calibration images"
        )


def _least_budget(setup: Setup, num_images: int) -> float:
    """Candidate-images until the first generation is over: that of the last block that is searched."""
    search, depth = setup.config.search, sum(segment.length for segment in setup.model.parts.segments)
    held_out = search.num_held_out(num_images)
    length, rest = searched_blocks(setup)[-1]
    scored = (1 + search.num_candidates) * (num_images - held_out) + held_out
    return num_images + scored * (rest + search.visits(length)[0]) / depth


def network_share(setup: Setup) -> float:
    """The mean share of the blocks that a candidate runs. The inputs of the others are cached."""
    depth = sum(segment.length for segment in setup.model.parts.segments)
    visits = setup.config.search.visits
    runs = [rest + length - n for length, rest in searched_blocks(setup) for n in visits(length)[1]]
    return float(np.mean(runs)) / depth


def _running(setup: Setup, num_images: int, num_evaluation: int, *, traced: Traced, speed: Speed) -> float:
    """The seconds of the whole run on one device, without loading and compiling."""
    config = setup.config
    chain = chain_cost(config.calibration.links, setup.model.parts, setup.specs, num_images)
    scored = 2 + (len(config.calibration.links) > 1) + max(config.milestones - 1, 0)  # quantized networks
    quantized = budget_of_search(setup, num_images) + chain.quantized + scored * num_evaluation
    floating = chain.floating + num_images + num_evaluation  # the teacher, and the float network's score
    return speed.seconds(traced.calibration) + floating / speed.floating + quantized / speed.quantized


def _num_searched(setup: Setup, name: str) -> int:
    """The number of numbers that the search varies at a site, over all blocks."""
    info, spec = setup.sites[name], dict(setup.specs)[name]
    segment, site = name.split("/", 1)
    channels = info.shape[-1] if spec.per_channel else 1
    return (info.depth or 1) * search_spaces(setup)[segment].num_coordinates(site, channels)
