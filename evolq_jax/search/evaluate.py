"""Scoring a population of one block's scales by the whole network's output, from the block's input on.

Blocks before the searched one are not run: their output is cached once per pass. Blocks after it are
the same for all candidates, so candidates and images are one batch there.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from evolq_jax.fitness import (
    FEATURES,
    LOCAL,
    Term,
    batched,
    logits_fitness,
    parse_fitness,
    relative_error,
    weight_of,
)
from evolq_jax.network import (
    at,
    in_chunks,
    index_in,
    largest_divisor,
    normalize,
    over_blocks,
    run_block,
    run_blocks,
    scan_blocks,
    window,
    with_features,
)
from evolq_jax.quant.sites import FloatSite, QuantSite, SiteFactory, fake_quant_weights, quant_sites
from evolq_jax.quant.spec import Specs, scope
from evolq_jax.search.budget import blocks_run
from evolq_jax.typing import Array, FitnessFn, ModelParts, Params, Preprocessing, Scales, Segment


@dataclass(frozen=True)
class Scoring:
    """Static settings of an evaluation: what is measured, and how much is held in memory at once.

    `fitness` is a sum of terms (`evolq_jax.fitness.parse_fitness`); `functions` are a user's terms, `top_k`
    belongs to `top_k_kl`. `batch_size` is the contrastive batch; `image_chunk` times `population_chunk`
    images run at once (this changes nothing but rounding).
    """

    fitness: str = "info_nce"
    batch_size: int = 100
    image_chunk: int = 10
    population_chunk: int = 1
    top_k: int = 10
    functions: tuple[FitnessFn, ...] = ()

    @property
    def terms(self) -> tuple[Term, ...]:
        """Of the sum."""
        return parse_fitness(self.fitness, self.functions)

    @property
    def local_weight(self) -> float:
        """Of the block's own output error; 0 where it plays no part."""
        return weight_of(LOCAL, self.terms)

    @property
    def features_weight(self) -> float:
        """Of the error of the features that the classifiers read; 0 where it plays no part."""
        return weight_of(FEATURES, self.terms)

    @property
    def has_local(self) -> bool:
        """Whether fitness depends on the block, so that it is unknown when another is visited."""
        return self.local_weight > 0

    def on_logits(self, temperature: Array | float) -> FitnessFn | None:
        """What of the fitness needs logits; None: nothing."""
        return logits_fitness(self.terms, temperature, self.top_k, self.functions)

    @property
    def runs_all(self) -> bool:
        """Whether blocks after the searched one run."""
        return self.on_logits(1.0) is not None or self.features_weight > 0

    @property
    def whole(self) -> "Scoring":
        """The same without a block's own output: what tells two networks apart. By KL if nothing is left."""
        kept = [f"{term.weight!r}*{term.name}" for term in self.terms if term.name != LOCAL]
        return replace(self, fitness="+".join(kept) or "kl") if self.has_local else self

    def blocks_run(self, parts: ModelParts, segment_number: int, block: int, size: int) -> int:
        """Blocks that a candidate for `size` blocks from `block` on runs."""
        return blocks_run(parts, segment_number, block) if self.runs_all else size


class Quantized(NamedTuple):
    """A network at one point of scale space; `quantized` are `params` with fake-quantized weights."""

    params: Params
    quantized: Params
    scales: Scales


def at_scales(specs: Specs, params: Params, scales: Scales) -> Quantized:
    """The network at `scales`."""
    return Quantized(params, fake_quant_weights(specs, params, scales), scales)


def block_inputs(
    parts: ModelParts,
    make_site: SiteFactory,
    chunk: int,
    params: Params,
    scales: Scales,
    tokens: Array,
    dtype: Any = jnp.float32,
) -> dict[str, Array]:
    """Every block's input, by segment: [L, B, ...], from the first segment's entry [B, ...].

    They are computed in float32 and kept in `dtype`.
    """

    def one_chunk(x: Array) -> dict[str, Array]:
        inputs = {}
        for number, segment in enumerate(parts.segments):
            x = segment.enter(params, make_site("", scales), x) if number else x
            x, kept = scan_blocks(segment, make_site, params, scales, x)
            inputs[segment.name] = kept.astype(dtype)
        return inputs

    chunks = jax.lax.map(one_chunk, _split(tokens, chunk))
    return {name: _join(jnp.moveaxis(x, 0, 1), axis=1) for name, x in chunks.items()}


def prefix_outputs(
    parts: ModelParts,
    make_site: SiteFactory,
    chunk: int,
    segment_number: int,
    params: Params,
    scales: Scales,
    tokens: Array,
    stop: Array | int,
) -> Array:
    """From the first segment's entry [B, ...] to the input of block `stop` (may be traced) of a segment."""
    *before, last = parts.segments[: segment_number + 1]

    def one_chunk(x: Array) -> Array:
        for number, segment in enumerate(before):
            x = segment.enter(params, make_site("", scales), x) if number else x
            x, _ = scan_blocks(segment, make_site, params, scales, x)
        x = last.enter(params, make_site("", scales), x) if before else x
        return run_blocks(last, make_site, params, scales, x, 0, index_in(last, stop))

    return _join(jax.lax.map(one_chunk, _split(tokens, chunk)))


def embed(
    parts: ModelParts,
    make_site: SiteFactory,
    chunk: int,
    preprocessing: Preprocessing,
    params: Params,
    scales: Scales,
    pixels: Array,
) -> Array:
    """uint8 images [B, height, width, channels] -> the first segment's entry [B, ...]."""

    def one_chunk(x: Array) -> Array:
        return parts.segments[0].enter(params, make_site("", scales), normalize(preprocessing, x))

    return _join(jax.lax.map(one_chunk, _split(pixels, chunk)))


def suffix_logits(
    parts: ModelParts,
    make_site: SiteFactory,
    segment_number: int,
    params: Params,
    scales: Scales,
    x: Array,
    start: Array | int,
) -> Array:
    """From the input of block `start` (may be traced, as in `run_blocks`) of a segment to logits [B, C]."""
    segment = parts.segments[segment_number]
    outer = make_site("", scales)
    x = run_blocks(segment, make_site, params, scales, x, start, segment.length)
    for later in parts.segments[segment_number + 1 :]:
        x, _ = scan_blocks(later, make_site, params, scales, later.enter(params, outer, x))
    return parts.head(params, outer, x)


def suffix_ends(
    parts: ModelParts,
    make_site: SiteFactory,
    segment_number: int,
    params: Params,
    scales: Scales,
    x: Array,
    start: Array | int,
    features: bool,
) -> tuple[Array, Array | None]:
    """`suffix_logits`, and where asked for the features [B, ...] that the classifiers read."""

    def run(make_site: SiteFactory) -> Array:
        return suffix_logits(parts, make_site, segment_number, params, scales, x, start)

    return with_features(parts, make_site, run) if features else (run(make_site), None)


def population_fitness(
    parts: ModelParts,
    specs: Specs,
    scoring: Scoring,
    segment_number: int,
    network: Quantized,
    candidates: Scales,
    index: Array | int,
    x: Array,
    teacher: Array,
    temperature: Array | float,
    target: Array | None = None,
    features: Array | None = None,
    gather: Callable[[Array], Array] = lambda found: found,
) -> Array:
    """Fitness [P] of candidates for the scales of a few neighbouring blocks (often one).

    Args:
      parts: the network's functions (static).
      specs: its quantizers (static).
      scoring: static settings.
      segment_number: which segment the block is in (static).
      network: the network at the current scales; all other blocks use these.
      candidates: local scales of the blocks, leading axes [P, blocks] on every leaf.
      index: the first of the blocks in its segment (traced).
      x: its input [B, ...].
      teacher: the float network's logits [B, C].
      temperature: of infoNCE (traced).
      target: the float blocks' output on `x`; needed where the fitness has a `local` term.
      features: the teacher's [B, ...]; needed where the fitness has a `features` term.
      gather: makes all images' logits and errors [P, B, ...] of those of `x`, where `x` is a device's share.
    """
    segment = parts.segments[segment_number]
    make_site = quant_sites(specs)
    local_specs = scope(specs, segment.name)
    num_candidates, num_searched = jax.tree.leaves(candidates)[0].shape[:2]
    index = index_in(segment, index)
    float_blocks = window(network.params[segment.name], index, num_searched)
    fitness_fn, local_weight = scoring.on_logits(temperature), scoring.local_weight
    group = largest_divisor(num_candidates, scoring.population_chunk)
    chunk = largest_divisor(x.shape[0], scoring.image_chunk)

    def run_searched(scales: Scales, params: Params, x: Array) -> Array:
        for block in range(num_searched):  # one but for a few: a loop of one would cost a slower program
            x = run_block(segment, at(params, block), QuantSite(local_specs, at(scales, block)), x)
        return x

    def one_group(group_scales: Scales) -> Array:
        quantize = jax.vmap(partial(fake_quant_weights, tuple(local_specs.items())))
        blocks = jax.vmap(quantize, in_axes=(None, 0))(float_blocks, group_scales)

        def one_chunk(chunk: tuple[Array, Array | None]) -> tuple[Array | None, ...]:
            x, wanted = chunk
            if group == 1:  # a mapped axis of one costs a slower matrix product on CPU
                x = run_searched(at(group_scales, 0), at(blocks, 0), x)
            else:
                x = _join(jax.vmap(run_searched, in_axes=(0, 0, None))(group_scales, blocks, x))
            errors = logits = made = None
            if wanted is not None:
                outputs = x.reshape(group, *wanted.shape)
                errors = jax.vmap(relative_error, in_axes=(0, None))(outputs, wanted)
            if scoring.runs_all:
                at_end = network.quantized, network.scales, x, index + num_searched
                ends = suffix_ends(parts, make_site, segment_number, *at_end, scoring.features_weight > 0)
                logits, made = jax.tree.map(lambda y: y.reshape(group, -1, *y.shape[1:]), ends)
            return logits, errors, made

        chunks = jax.tree.map(lambda leaf: _split(leaf, chunk), (x, target if local_weight else None))
        # [chunks, group, chunk, ...] -> [group, B, ...]
        found = jax.tree.map(lambda y: _join(jnp.moveaxis(y, 0, 1), axis=1), jax.lax.map(one_chunk, chunks))
        return fitness_of(*jax.tree.map(gather, found))

    def fitness_of(logits: Array | None, errors: Array | None, made: Array | None) -> Array:
        """The sum of the terms [group], from logits [group, B, C], errors [group, B] and features."""
        total = jnp.zeros(())
        if fitness_fn is not None and logits is not None:
            score = partial(batched, fitness_fn, teacher=teacher, batch_size=scoring.batch_size)
            total = jax.vmap(score)(logits)
        if made is not None:
            if features is None:
                raise ValueError(f"the fitness '{scoring.fitness}' needs the teacher's features")
            found = jax.vmap(relative_error, in_axes=(0, None))(made, features)
            total = total + scoring.features_weight * found.mean(-1)
        return total if errors is None else total + local_weight * errors.mean(-1)

    groups = jax.tree.map(lambda leaf: _split(leaf, group), candidates)
    return jax.lax.map(one_group, groups).reshape(num_candidates)


def float_outputs(segment: Segment, chunk: int, params: Params, x: Array) -> Array:
    """Neighbouring blocks in floating point, on inputs [B, ...]; `chunk` images at once."""

    def one_chunk(x: Array) -> Array:
        return over_blocks(lambda x, block: (segment.block(block, FloatSite(), x), None), x, params)[0]

    return in_chunks(one_chunk, x, chunk)


def _split(x: Array, chunk: int) -> Array:
    """[B, ...] -> [B / chunk, chunk, ...]."""
    return x.reshape(-1, largest_divisor(x.shape[0], chunk), *x.shape[1:])


def _join(x: Array, axis: int = 0) -> Array:
    """Merges an axis and the next: the inverse of `_split`."""
    return x.reshape(*x.shape[:axis], -1, *x.shape[axis + 2 :])
