"""What descends: the fitness as a function of a few arrays, with straight-through gradients or SPSA's."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from evolq_jax.gradient.config import BaselineConfig
from evolq_jax.network.chunks import in_chunks
from evolq_jax.network.parts import ModelParts
from evolq_jax.network.run import scan_blocks
from evolq_jax.objective.objective import Objective, Outputs, Teacher
from evolq_jax.quant.gradients import Sharing, lsq_scaled
from evolq_jax.quant.qparams import QParams
from evolq_jax.quant.sites import SiteFactory, fake_quant_weights, quant_sites
from evolq_jax.quant.spec import Specs, scope
from evolq_jax.search.space import SearchSpace, make_space
from evolq_jax.typing import Array, Params

SMALLEST = 1e-12  # of a raw scale that lands on zero
STACKED_KERNEL = 5  # axes of the kernels of several blocks: [L, height, width, in, out]

Theta = dict[str, Array]  # site -> what the optimiser moves


@dataclass(frozen=True)
class Problem:
    """Static settings of the descent.

    Attributes:
      parts: the network's functions.
      specs: its quantizers.
      sites: whose scales descend.
      objective: what is minimised.
      image_chunk: images that run at once.
      baseline: settings of the descent.
      sharing: of the sites whose gradients have LSQ's factor (`quant.gradients.elements_sharing`).
    """

    parts: ModelParts
    specs: Specs
    sites: tuple[str, ...]
    objective: Objective
    image_chunk: int
    baseline: BaselineConfig
    sharing: Sharing = ()


class Data(NamedTuple):
    """The arrays of the descent."""

    params: Params
    start: QParams
    tokens: Array  # images at the first segment's entry [B, ...]
    teacher: Teacher  # on the same images
    temperature: Array | float = 3.0


def encode(problem: Problem, qparams: QParams) -> Theta:
    """What stands for `qparams` themselves, the start: of all blocks at once, in the search's spaces."""
    theta: Theta = {}
    for segment, space in _spaces(problem).items():
        solution = space.encode_blocks(scope(qparams, segment))
        theta |= {f"{segment}/{site}": value for site, value in solution.items()}
    return theta


def decode(problem: Problem, theta: Theta, start: QParams) -> QParams:
    """All scales, with those that `theta` stands for put in; zero points stay."""
    if problem.baseline.parametrization == "raw":
        theta = {site: jnp.maximum(jnp.abs(value), SMALLEST) for site, value in theta.items()}
    qparams = dict(start)
    for segment, space in _spaces(problem).items():
        solution = {site: theta[f"{segment}/{site}"] for site in space.sites}
        moved = jax.vmap(space.decode, in_axes=(0, 0, None))(solution, scope(start, segment), 1.0)
        qparams |= {f"{segment}/{site}": moved[site] for site in space.sites}
    return qparams


def _spaces(problem: Problem) -> dict[str, SearchSpace]:
    """Of every segment in which scales descend."""
    segments = dict.fromkeys(site.split("/")[0] for site in problem.sites)
    sites, kind = problem.sites, problem.baseline.parametrization
    return {segment: make_space(sites, sites, kind, segment, problem.specs) for segment in segments}


def straight_through_network(problem: Problem, data: Data, theta: Theta) -> tuple[Params, QParams]:
    """The quantized network's weights and scales, with straight-through gradients to `theta`."""
    qparams = lsq_scaled(problem.specs, problem.sharing, decode(problem, theta, data.start))
    return fake_quant_weights(problem.specs, data.params, qparams), qparams


def straight_through_outputs(problem: Problem, params: Params, qparams: QParams, x: Array) -> Outputs:
    """What that network makes of images at the first segment's entry [B, ...]: all run at once."""
    parts = problem.parts

    def logits(make_site: SiteFactory) -> Array:
        outer, y = make_site("", qparams), x
        for number, segment in enumerate(parts.segments):
            y = segment.enter(params, outer, y) if number else y
            unroll = loops_are_slow(params[segment.name])
            y, _ = scan_blocks(segment, make_site, params, qparams, y, unroll=unroll)
        return parts.head(params, outer, y)

    return problem.objective.outputs(parts, quant_sites(problem.specs), logits)


def loops_are_slow(blocks: Params) -> bool:
    """Whether a loop over these stacked blocks would have a slow gradient.

    XLA's CPU backend runs gradients of convolutions inside loops tens of times slower than outside
    (`benchmarks/descent.py`). Without a loop every block is compiled, which only these are worth.
    """
    has_kernels = any(leaf.ndim == STACKED_KERNEL for leaf in jax.tree.leaves(blocks))
    return has_kernels and jax.default_backend() == "cpu"


def straight_through_loss(problem: Problem, data: Data, theta: Theta, images: Array) -> Array:
    """The fitness on the images of these indices [B], with straight-through gradients.

    Chunks of images are run again in the backward pass, so that memory is one chunk's. They are a loop in one
    program, for SPSA and line searches, which need one; `gradient.chunks` has the same without.
    """
    network = straight_through_network(problem, data, theta)
    one_chunk = partial(jax.checkpoint(partial(straight_through_outputs, problem)), *network)
    outputs = in_chunks(one_chunk, data.tokens[images], problem.image_chunk)
    return problem.objective(outputs, data.teacher.rows(images), data.temperature)


def spsa(
    loss: Callable[[Theta], Array], theta: Theta, key: Array, config: BaselineConfig
) -> tuple[Array, Theta]:
    """Mean loss of the points tried, and the gradient from differences along random signs (Spall 1992)."""

    def one(key: Array) -> tuple[Array, Theta]:
        keys = dict(zip(theta, jax.random.split(key, len(theta)), strict=True))
        signs = {
            site: jax.random.rademacher(keys[site], leaf.shape, leaf.dtype) for site, leaf in theta.items()
        }
        ends = [
            loss({site: theta[site] + side * config.spsa_radius * signs[site] for site in theta})
            for side in (1.0, -1.0)
        ]
        slope = (ends[0] - ends[1]) / (2.0 * config.spsa_radius)
        return (ends[0] + ends[1]) / 2.0, {site: slope * sign for site, sign in signs.items()}

    values, gradients = jax.lax.map(one, jax.random.split(key, config.spsa_samples))
    return jnp.mean(values), jax.tree.map(lambda leaf: leaf.mean(0), gradients)
