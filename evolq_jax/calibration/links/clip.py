"""The link `clip`: ranges of one site after the other, by what the whole network's output makes of them.

Observers compare ranges by the error of the tensor itself. What counts is the network's output: here a site's
range is multiplied by a few ratios, coarse ones first, and the KL divergence from the float network decides
between them. One ratio serves a tensor (all its channels), since thousands of free scales would fit the few
images that calibration has. Blocks go first to last, so that each is judged on the inputs that it will get,
and only one block's inputs are held.
"""

from collections import Counter
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from evolq_jax.calibration.link import Calibration, Cost, NetworkLink, NotAfter, State
from evolq_jax.calibration.streams import Place, block_of
from evolq_jax.errors import UserError
from evolq_jax.network.chunks import in_chunks, largest_divisor
from evolq_jax.network.parts import ModelParts, blocks_run
from evolq_jax.network.point import at_qparams
from evolq_jax.network.reading import float_reading
from evolq_jax.network.run import forward, index_in, run_blocks
from evolq_jax.objective.objective import Teacher, make_objective
from evolq_jax.quant.qparams import QParams, SiteQParams
from evolq_jax.quant.spec import Specs, scope, select
from evolq_jax.search.budget import candidate_images
from evolq_jax.search.population import Context, population_fitness
from evolq_jax.search.runner import Runner
from evolq_jax.typing import Array, Params

COARSE = (0.0, -0.75, -0.5, -0.25, 0.25)  # octaves, the range as it is first
FINE = (0.0, -1 / 6, -1 / 12, 1 / 12, 1 / 6)  # octaves, around the coarse grid's best


@dataclass(frozen=True)
class ClipConfig:
    """Settings of the initialiser `clip`.

    Attributes:
      sites: patterns of the sites whose ranges are tried, of those inside blocks; weights and activations.
      num_images: calibration images used, from the first on; the time taken grows with them.
      held_out: share of these that candidates are not compared on, but that must agree with a move; 0: none,
        and every move that is better on the others is made.
    """

    sites: tuple[str, ...] = ("*",)
    num_images: int = 64
    held_out: float = 0.5

    def __post_init__(self) -> None:
        """Rejects numbers that mean nothing."""
        if self.num_images < 1:
            raise UserError(f"calibration.clip.num_images must be at least 1, not {self.num_images}")
        if not 0 <= self.held_out < 1:
            raise UserError(f"calibration.clip.held_out must be from 0 to below 1, not {self.held_out}")


class Judged(NamedTuple):
    """What ranges are judged on: images at the entry of a block, and the float network's logits for them."""

    x: Array  # [B, ...]
    teacher: Array  # [B, C]

    def rows(self, part: slice) -> "Judged":
        """Some of the images."""
        return Judged(self.x[part], self.teacher[part])


class Sizes(NamedTuple):
    """How many images are held out, and how many images and candidates run at once."""

    held_out: int
    chunk: int
    population: int


class Visit(NamedTuple):
    """Static: what a visit of any block of a segment does."""

    place: Place
    names: tuple[str, ...]  # of the sites whose ranges are tried, local
    sizes: Sizes


def clip(calibration: Calibration, state: State, settings: ClipConfig) -> State:
    """Multiplies the scales of sites inside blocks by the ratios with the least KL from the float network.

    Zero points stay, so a range is clipped or widened around zero. A site's best ratio is written back if it
    is better than none both on the images that candidates are compared on and on those held out.

    Returns:
      The state with other scales.

    Raises:
      UserError: a pattern of `calibration.clip.sites` matches no site of a block with uniform quantizer.
    """
    parts, specs = calibration.parts, calibration.specs
    chosen = clipped_sites(parts, specs, settings)
    images = jnp.concatenate(list(calibration.batches))[: settings.num_images]
    population = 1 if jax.default_backend() == "cpu" else len(COARSE)  # as the search has it
    sizes = Sizes(int(len(images) * settings.held_out), calibration.chunk, population)
    judged = Judged(images, _teacher(parts, state.reference, images, chunk=calibration.chunk))
    done, total = 0, sum(segment.length for segment in parts.segments)
    for number, segment in enumerate(parts.segments):
        names = tuple(scope(dict.fromkeys(chosen), segment.name))
        visit = Visit(Place(parts, specs, number), names, sizes)
        judged = _enter(visit, state, judged)
        for block in range(segment.length):
            state, judged = _visit(visit, state, judged, jnp.int32(block))
            jax.block_until_ready(judged.x)
            done += 1
            calibration.progress(done, total)
    return state


def clipped_sites(parts: ModelParts, specs: Specs, settings: ClipConfig) -> tuple[str, ...]:
    """The sites that `clip` changes: uniform ones inside blocks that match a pattern.

    Raises:
      UserError: a pattern matches none.
    """
    segments = {segment.name for segment in parts.segments}
    uniform = [name for name, spec in specs if spec.quantizer.equal_steps]
    return select(settings.sites, [name for name in uniform if name.split("/")[0] in segments])


def clip_cost(parts: ModelParts, specs: Specs, settings: ClipConfig, num_images: int) -> Cost:
    """What all candidates amount to, at most."""
    num_images = min(num_images, settings.num_images)
    held_out = int(num_images * settings.held_out)
    at_a_site = (len(COARSE) + len(FINE)) * (num_images - held_out) + 2 * held_out
    counts = Counter(name.split("/")[0] for name in clipped_sites(parts, specs, settings))
    blocks = sum(
        counts[segment.name] * blocks_run(parts, number, block)
        for number, segment in enumerate(parts.segments)
        for block in range(segment.length)
    )
    return Cost(quantized=candidate_images(parts, at_a_site * blocks))


@partial(jax.jit, static_argnames=("parts", "chunk"))
def _teacher(parts: ModelParts, params: Params, images: Array, *, chunk: int) -> Array:
    return in_chunks(lambda x: forward(parts, float_reading(params), x), images, chunk)


@partial(jax.jit, static_argnames=("visit",))
def _enter(visit: Visit, state: State, judged: Judged) -> Judged:
    """The images at the entry of a segment."""
    place = visit.place
    quantized = at_qparams(place.specs, state.params, state.qparams).reading(place.specs)
    enter = partial(place.segment.enter, quantized.params, quantized.outside)
    return judged._replace(x=in_chunks(enter, judged.x, visit.sizes.chunk))


@partial(jax.jit, static_argnames=("visit",))
def _visit(visit: Visit, state: State, judged: Judged, index: Array) -> tuple[State, Judged]:
    """The state with the ranges of block `index` decided, and the images behind that block."""
    (parts, specs, number), names, sizes = visit
    segment = parts.segments[number]
    network = at_qparams(specs, state.params, state.qparams)
    split = len(judged.x) - sizes.held_out
    compared, held_out = judged.rows(slice(split)), judged.rows(slice(split, None))
    qparams = dict(state.qparams)

    def fitness(images: Judged, own: QParams, site: Array, octaves: Array) -> Array:
        """KL [P] with the range of one site (a number among `names`) moved by so many octaves [P]."""
        candidates = moved(names, own, site, octaves)
        candidates = jax.tree.map(lambda leaf: leaf[:, None], candidates)  # of one block
        runner = Runner(parts, specs, largest_divisor(len(images.x), sizes.chunk), sizes.population)
        context = Context(network, index, images.x, Teacher(images.teacher), 1.0)
        return population_fitness(runner, make_objective("kl"), context, candidates, number=number)

    def one_site(own: QParams, site: Array) -> tuple[QParams, None]:
        def refined(middle: Array, grid: Array) -> tuple[Array, None]:
            octaves = middle + grid
            return octaves[jnp.argmin(fitness(compared, own, site, octaves))], None

        found, _ = jax.lax.scan(refined, jnp.float32(0), jnp.asarray([COARSE, FINE], jnp.float32))
        better = jnp.bool_(True)
        if sizes.held_out:

            def agrees() -> Array:
                before, after = fitness(held_out, own, site, jnp.stack([jnp.float32(0), found]))
                return after < before

            better = jax.lax.cond(found == 0, lambda: jnp.bool_(False), agrees)
        kept = moved(names, own, site, jnp.where(better, found, 0.0)[None])
        return jax.tree.map(lambda leaf: leaf[0], kept), None

    if names:
        own = block_of(visit.place, state, index).qparams
        own, _ = jax.lax.scan(one_site, own, jnp.arange(len(names)))
        for name, site_qparams in own.items():
            whole = f"{segment.name}/{name}"
            qparams[whole] = jax.tree.map(lambda a, b: a.at[index].set(b), qparams[whole], site_qparams)
    quantized, block = at_qparams(specs, state.params, qparams).reading(specs), index_in(segment, index)
    run = lambda x: run_blocks(segment, quantized, x, start=block, stop=block + 1)  # noqa: E731
    x = in_chunks(run, judged.x, sizes.chunk)
    return state._replace(qparams=qparams), judged._replace(x=x)


def moved(names: tuple[str, ...], qparams: QParams, site: Array, octaves: Array) -> QParams:
    """Copies [P, ...] of a block's scales with those of the `site`-th of `names` times `2 ** octaves` [P]."""
    factors = 2.0**octaves

    def copies(name: str) -> Array:
        scale = qparams[name].scale
        if name not in names:
            return jnp.broadcast_to(scale, (len(octaves), *scale.shape))
        chosen = jnp.where(names.index(name) == site, factors, 1.0)
        return chosen.reshape(-1, *[1] * scale.ndim) * scale

    def repeated(leaf: Array) -> Array:
        return jnp.broadcast_to(leaf, (len(octaves), *leaf.shape))

    return {
        name: SiteQParams(copies(name), repeated(site_qparams.zero_point), repeated(site_qparams.bits))
        for name, site_qparams in qparams.items()
    }


CLIP = NetworkLink(
    "clip",
    "multiplies the range of one site after the other by the ratio that serves the network's logits best",
    clip,
    settings=ClipConfig(),
    not_after=NotAfter(
        lambda earlier: earlier.rounds, "would change the ranges that weights have been rounded to"
    ),
    cost=clip_cost,
    check=clipped_sites,
)
