"""The link `clip`: ranges of one site after the other, by what the whole network's output makes of them.

Observers compare ranges by the error of the tensor itself. What counts is the network's output: here a site's
range is multiplied by a few ratios, coarse ones first, and the KL divergence from the float network decides
between them. One ratio serves a tensor (all its channels), since thousands of free scales would fit the few
images that calibration has. Blocks go first to last, so that each is judged on the inputs that it will get,
and only one block's inputs are held.
"""

from collections import Counter
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from evolq_jax.calibration.layerwise import block_of
from evolq_jax.calibration.link import Calibration, State
from evolq_jax.calibration.links.clip_config import ClipConfig
from evolq_jax.network.chunks import in_chunks, largest_divisor
from evolq_jax.network.parts import ModelParts, blocks_run
from evolq_jax.network.point import at_qparams
from evolq_jax.network.run import forward, index_in, run_blocks
from evolq_jax.objective.scoring import Scoring
from evolq_jax.quant.qparams import QParams
from evolq_jax.quant.sites import float_sites, quant_sites
from evolq_jax.quant.spec import Specs, scope, select
from evolq_jax.search.budget import candidate_images
from evolq_jax.search.population import population_fitness
from evolq_jax.typing import Array, Params

COARSE = (0.0, -0.75, -0.5, -0.25, 0.25)  # octaves, the range as it is first
FINE = (0.0, -1 / 6, -1 / 12, 1 / 12, 1 / 6)  # octaves, around the coarse grid's best


class Images(NamedTuple):
    """Images on their way through the quantized network, and where the float network takes them."""

    x: Array  # [B, ...]
    teacher: Array  # logits [B, C]


class Sizes(NamedTuple):
    """Static: how many images are held out, and how many images and candidates run at once."""

    held_out: int
    chunk: int
    population: int


def clip(calibration: Calibration, state: State) -> State:
    """Multiplies the scales of sites inside blocks by the ratios with the least KL from the float network.

    Zero points stay, so a range is clipped or widened around zero. A site's best ratio is written back if it
    is better than none both on the images that candidates are compared on and on those held out.

    Returns:
      The state with other scales.

    Raises:
      UserError: a pattern of `calibration.clip.sites` matches no site of a block with uniform quantizer.
    """
    parts, specs, config = calibration.parts, calibration.specs, calibration.clip
    chosen = clipped_sites(parts, specs, config.sites)
    images = jnp.concatenate(list(calibration.batches))[: config.num_images]
    population = 1 if jax.default_backend() == "cpu" else len(COARSE)  # as the search has it
    sizes = Sizes(int(len(images) * config.held_out), calibration.chunk, population)
    data = Images(images, _teacher(parts, calibration.chunk, state.reference, images))
    done, total = 0, sum(segment.length for segment in parts.segments)
    for number, segment in enumerate(parts.segments):
        data = _enter(parts, specs, number, calibration.chunk, state, data)
        names = tuple(scope(dict.fromkeys(chosen), segment.name))
        for block in range(segment.length):
            state, data = _visit(parts, specs, number, names, sizes, state, data, jnp.int32(block))
            jax.block_until_ready(data.x)
            done += 1
            calibration.progress(done, total)
    return state


def clipped_sites(parts: ModelParts, specs: Specs, patterns: tuple[str, ...]) -> tuple[str, ...]:
    """The sites that `clip` changes: uniform ones inside blocks that match a pattern.

    Raises:
      UserError: a pattern matches none.
    """
    segments = {segment.name for segment in parts.segments}
    uniform = [name for name, spec in specs if spec.quantizer == "uniform"]
    return select(patterns, [name for name in uniform if name.split("/")[0] in segments])


def clip_images(parts: ModelParts, specs: Specs, config: ClipConfig, num_images: int) -> float:
    """Images through the whole network that all of `clip`'s candidates amount to, at most."""
    num_images = min(num_images, config.num_images)
    held_out = int(num_images * config.held_out)
    at_a_site = (len(COARSE) + len(FINE)) * (num_images - held_out) + 2 * held_out
    counts = Counter(name.split("/")[0] for name in clipped_sites(parts, specs, config.sites))
    blocks = sum(
        counts[segment.name] * blocks_run(parts, number, block)
        for number, segment in enumerate(parts.segments)
        for block in range(segment.length)
    )
    return candidate_images(parts, at_a_site * blocks)


@partial(jax.jit, static_argnames=("parts", "chunk"))
def _teacher(parts: ModelParts, chunk: int, params: Params, images: Array) -> Array:
    return in_chunks(lambda x: forward(parts, float_sites, params, {}, x), images, chunk)


@partial(jax.jit, static_argnames=("parts", "specs", "number", "chunk"))
def _enter(parts: ModelParts, specs: Specs, number: int, chunk: int, state: State, data: Images) -> Images:
    """The images at the entry of a segment."""
    quantized, site = at_qparams(specs, state.params, state.qparams).quantized, quant_sites(specs)
    enter = partial(parts.segments[number].enter, quantized, site("", state.qparams))
    return data._replace(x=in_chunks(enter, data.x, chunk))


@partial(jax.jit, static_argnames=("parts", "specs", "number", "names", "sizes"))
def _visit(
    parts: ModelParts,
    specs: Specs,
    number: int,
    names: tuple[str, ...],
    sizes: Sizes,
    state: State,
    data: Images,
    index: Array,
) -> tuple[State, Images]:
    """The state with the ranges of block `index` decided, and the images behind that block."""
    segment = parts.segments[number]
    network = at_qparams(specs, state.params, state.qparams)
    split = len(data.x) - sizes.held_out
    compared, held_out = (
        Images(*(leaf[part] for leaf in data)) for part in (slice(split), slice(split, None))
    )
    qparams = dict(state.qparams)

    def fitness(images: Images, own: QParams, site: Array, octaves: Array) -> Array:
        """KL [P] with the range of one site (a number among `names`) moved by so many octaves [P]."""
        candidates = moved(names, own, site, octaves)
        candidates = jax.tree.map(lambda leaf: leaf[:, None], candidates)  # of one block
        scoring = Scoring("kl", len(images.x), largest_divisor(len(images.x), sizes.chunk), sizes.population)
        return population_fitness(
            parts, specs, scoring, number, network, candidates, index, images.x, images.teacher, 1.0
        )

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
        own = block_of(parts, number, state, index)[2]
        own, _ = jax.lax.scan(one_site, own, jnp.arange(len(names)))
        for name, site_qparams in own.items():
            whole = f"{segment.name}/{name}"
            qparams[whole] = jax.tree.map(lambda a, b: a.at[index].set(b), qparams[whole], site_qparams)
    quantized = at_qparams(specs, state.params, qparams).quantized
    block = index_in(segment, index)
    x = in_chunks(
        lambda x: run_blocks(segment, quant_sites(specs), quantized, qparams, x, block, block + 1),
        data.x,
        sizes.chunk,
    )
    return state._replace(qparams=qparams), data._replace(x=x)


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
        name: site_qparams._replace(scale=copies(name), zero_point=repeated(site_qparams.zero_point))
        for name, site_qparams in qparams.items()
    }
