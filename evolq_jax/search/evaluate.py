"""Parts of a quantized network's forward pass: what a search runs once, what it keeps, what it runs again."""

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from evolq_jax.fitness import (
    FEATURES,
    LOCAL,
    Term,
    logits_fitness,
    parse_fitness,
    weight_of,
)
from evolq_jax.network import (
    in_chunks,
    index_in,
    largest_divisor,
    normalize,
    over_blocks,
    run_blocks,
    scan_blocks,
    with_features,
)
from evolq_jax.quant.sites import FloatSite, SiteFactory, fake_quant_weights
from evolq_jax.quant.spec import Specs
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

    chunks = jax.lax.map(one_chunk, split(tokens, chunk))
    return {name: join(jnp.moveaxis(x, 0, 1), axis=1) for name, x in chunks.items()}


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

    return join(jax.lax.map(one_chunk, split(tokens, chunk)))


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

    return join(jax.lax.map(one_chunk, split(pixels, chunk)))


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


def float_outputs(segment: Segment, chunk: int, params: Params, x: Array) -> Array:
    """Neighbouring blocks in floating point, on inputs [B, ...]; `chunk` images at once."""

    def one_chunk(x: Array) -> Array:
        return over_blocks(lambda x, block: (segment.block(block, FloatSite(), x), None), x, params)[0]

    return in_chunks(one_chunk, x, chunk)


def split(x: Array, chunk: int) -> Array:
    """[B, ...] -> [B / chunk, chunk, ...]."""
    return x.reshape(-1, largest_divisor(x.shape[0], chunk), *x.shape[1:])


def join(x: Array, axis: int = 0) -> Array:
    """Merges an axis and the next: the inverse of `split`."""
    return x.reshape(*x.shape[:axis], -1, *x.shape[axis + 2 :])
